"""What watches a run: progress, time estimate, pictures, exported weights, predictions."""

from lit_splitmask.callbacks.clock import TrainingClock
from lit_splitmask.callbacks.estimate import EstimateTime
from lit_splitmask.callbacks.export import ExportWeights
from lit_splitmask.callbacks.pictures import HalvesPicture
from lit_splitmask.callbacks.predictions import PredictionWriter
from lit_splitmask.callbacks.progress import RunProgress, clock

__all__ = [
    "EstimateTime",
    "ExportWeights",
    "HalvesPicture",
    "PredictionWriter",
    "RunProgress",
    "TrainingClock",
    "clock",
]
