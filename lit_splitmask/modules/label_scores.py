"""Scores of label maps, computed from a confusion matrix. Pure functions."""

from torch import Tensor


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class.

    Args:
        confusion: (K, K) counts; rows are true classes, columns predicted ones.

    Returns:
        (K,) float64; NaN for a class without true or predicted pixels.
    """
    counts = confusion.cpu().double()  # some devices have no float64
    hit = counts.diag()
    return hit / (counts.sum(dim=0) + counts.sum(dim=1) - hit)


def scores_of(confusion: Tensor) -> dict[str, Tensor]:
    """``miou``, the mean over the classes that have an IoU, and ``pixel_accuracy``; both NaN without labelled pixels."""
    counts = confusion.cpu().double()
    scores = {"miou": class_iou(confusion).nanmean(), "pixel_accuracy": counts.diag().sum() / counts.sum()}
    return {name: value.float() for name, value in scores.items()}
