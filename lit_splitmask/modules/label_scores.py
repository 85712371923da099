"""Scores of label maps: of all images together, and how far they depend on which images there are."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lit_splitmask.losses import IGNORED

NUM_RESAMPLES = 1000
"""Bootstrap samples."""


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


class ImageCounts(Metric):
    """Counts of pixels image by image, for :func:`bootstrap`: (N, 3, K) int64, those that are right, true and predicted.

    Args:
        num_classes: K.

    Example:
        >>> counts = ImageCounts(2)
        >>> counts.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]))
        >>> counts.compute().tolist()
        [[[1, 1], [2, 1], [1, 2]]]
    """

    counts: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("counts", default=[], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Adds one image: classes of its pixels, of any shape; pixels whose target is IGNORED do not count."""
        labelled = target != IGNORED
        predicted, target = predicted[labelled], target[labelled]
        parts = (target[predicted == target], target, predicted)
        self.counts.append(torch.stack([torch.bincount(part, minlength=self.num_classes) for part in parts])[None])

    def compute(self) -> Tensor:
        """The counts of all images of all processes, in any order."""
        return dim_zero_cat(self.counts)


def bootstrap(counts: Tensor, confidence: float) -> dict[str, Any] | None:
    """Intervals of the scores over images: the percentiles of resampled sets of images.

    Pixels of an image are not independent, so the images are drawn, not their pixels. Percentiles stay in [0, 1].

    Args:
        counts: (N, 3, K) int64 of :class:`ImageCounts`.
        confidence: Level of the intervals.

    Returns:
        The ends of ``miou``, ``pixel_accuracy`` and ``iou``, a list with None for classes without pixels; None for fewer than two
        images.
    """
    num_images = len(counts)
    if num_images < 2:
        return None
    generator = np.random.default_rng(0)
    # sorted, so that the order in which processes deliver their images does not matter
    stored = counts.flatten(1).cpu().double().numpy()
    stored = stored[np.lexsort(stored.T)]
    drawn = (generator.integers(num_images, size=num_images) for _ in range(NUM_RESAMPLES))
    sums = np.stack([np.bincount(chosen, minlength=num_images) @ stored for chosen in drawn])
    sums = sums.reshape(NUM_RESAMPLES, 3, -1)
    right, true, predicted = sums[:, 0], sums[:, 1], sums[:, 2]
    union = true + predicted - right
    iou = np.divide(right, union, out=np.full_like(right, np.nan), where=union > 0)
    pixels = true.sum(axis=1)
    known = pixels > 0
    if not known.any():
        return None

    def ends(values: np.ndarray) -> list[float] | None:
        values = values[np.isfinite(values)]
        return np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist() if len(values) else None

    return {
        "miou": ends(np.nanmean(iou[known], axis=1)),
        "pixel_accuracy": ends(right[known].sum(axis=1) / pixels[known]),
        "iou": [ends(column) for column in iou.T],
    }
