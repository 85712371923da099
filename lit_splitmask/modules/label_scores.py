"""Scores of label maps from a confusion matrix. Pure functions."""

from torch import Tensor


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class: (K, K), rows true and columns predicted, -> (K,) float64.

    NaN for a class that has no pixels, neither true nor predicted.
    """
    counts = confusion.cpu().double()  # not every device has float64
    hit = counts.diag()
    return hit / (counts.sum(dim=0) + counts.sum(dim=1) - hit)


def scores_of(confusion: Tensor) -> dict[str, Tensor]:
    """``miou``, over the classes that have an IoU, and ``pixel_accuracy``; both NaN without labelled pixels."""
    counts = confusion.cpu().double()
    scores = {"miou": class_iou(confusion).nanmean(), "pixel_accuracy": counts.diag().sum() / counts.sum()}
    return {name: value.float() for name, value in scores.items()}
