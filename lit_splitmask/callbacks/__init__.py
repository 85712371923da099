"""Callbacks: progress, time estimate, checkpoint selection with its signals, pictures, exported weights, predictions."""

from lit_splitmask.callbacks.detection_pictures import DetectionPictures
from lit_splitmask.callbacks.early_stopping import OverfitAwareEarlyStopping, ScoreEarlyStopping
from lit_splitmask.callbacks.estimate import EstimateTime
from lit_splitmask.callbacks.export import ExportWeights
from lit_splitmask.callbacks.export_along import ExportAlong
from lit_splitmask.callbacks.moving_average import MovingAverage
from lit_splitmask.callbacks.prediction_writers import CocoResults, LabelMapWriter, NumberWriter, PredictionWriter
from lit_splitmask.callbacks.pretraining_pictures import HalvesPicture
from lit_splitmask.callbacks.progress import RunProgress
from lit_splitmask.callbacks.segmentation_pictures import SegmentationPictures
from lit_splitmask.callbacks.selection import OverfitAwareCheckpoint
from lit_splitmask.callbacks.stop_on_signal import StopOnSignal
from lit_splitmask.callbacks.training_clock import TrainingClock
from lit_splitmask.callbacks.whole_checkpoints import WholeCheckpointIO
from lit_splitmask.selection.signals import KNN, HeldOutLoss, Linear, LossGap, RankMe, ShortFinetune

__all__ = [
    "KNN",
    "CocoResults",
    "DetectionPictures",
    "EstimateTime",
    "ExportAlong",
    "ExportWeights",
    "HalvesPicture",
    "HeldOutLoss",
    "LabelMapWriter",
    "Linear",
    "LossGap",
    "MovingAverage",
    "NumberWriter",
    "OverfitAwareCheckpoint",
    "OverfitAwareEarlyStopping",
    "PredictionWriter",
    "RankMe",
    "RunProgress",
    "ScoreEarlyStopping",
    "SegmentationPictures",
    "ShortFinetune",
    "StopOnSignal",
    "TrainingClock",
    "WholeCheckpointIO",
]
