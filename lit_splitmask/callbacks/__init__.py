"""What watches a run: progress, time estimate, signals, checkpoint selection, pictures, weights, predictions."""

from lit_splitmask.callbacks.clock import TrainingClock
from lit_splitmask.callbacks.detection_pictures import CocoResults, DetectionPictures
from lit_splitmask.callbacks.estimate import EstimateTime
from lit_splitmask.callbacks.export import ExportWeights
from lit_splitmask.callbacks.pictures import HalvesPicture
from lit_splitmask.callbacks.predictions import PredictionWriter
from lit_splitmask.callbacks.progress import RunProgress, clock
from lit_splitmask.callbacks.segmentation_pictures import LabelMapWriter, SegmentationPictures
from lit_splitmask.callbacks.selection import OverfitAwareCheckpoint, OverfitAwareEarlyStopping
from lit_splitmask.callbacks.signals import KNN, HeldOutLoss, Linear, LossGap, RankMe, ShortFinetune

__all__ = [
    "KNN",
    "CocoResults",
    "DetectionPictures",
    "EstimateTime",
    "ExportWeights",
    "HalvesPicture",
    "HeldOutLoss",
    "LabelMapWriter",
    "Linear",
    "LossGap",
    "OverfitAwareCheckpoint",
    "OverfitAwareEarlyStopping",
    "PredictionWriter",
    "RankMe",
    "RunProgress",
    "SegmentationPictures",
    "ShortFinetune",
    "TrainingClock",
    "clock",
]
