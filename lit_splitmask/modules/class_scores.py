"""Losses and scores of classifiers: of one class per image, and of several."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MultilabelAveragePrecision
from torchmetrics.utilities.data import dim_zero_cat

from lit_splitmask.distributed import sum_over_processes, world_size
from lit_splitmask.errors import UserError

_HOW_MANY = {False: "one label per image", True: "several labels per image"}


def check_same_kind(network: bool, images: bool) -> None:
    """Checks that a classifier and images agree whether an image may have several labels.

    Raises:
        UserError: They do not.
    """
    if network != images:
        raise UserError(
            f"The classifier was made for {_HOW_MANY[network]}, but these images have {_HOW_MANY[images]}: use images of the "
            "same kind (--data.splits.labels several for a list), or train a new classifier."
        )


def soft_loss(logits: Tensor, targets: Tensor, several: bool, weights: Tensor | None) -> Tensor:
    """The cross-entropy of soft targets (B, K); with several labels the binary one, with weights (K,) on positives."""
    if several:
        return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), pos_weight=weights)
    return F.cross_entropy(logits, targets)


def mean_over_labelled(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy whose mean over processes, which may have different numbers of labels, is the mean over all labels."""
    total = F.cross_entropy(logits, targets, reduction="sum")
    count = total.new_tensor(float(len(targets)))
    sum_over_processes(count)
    return total / (count.clamp(min=1) / world_size())


def accuracies(num_classes: int, prefix: str) -> MetricCollection:
    """The accuracies of one class per image; top-5 only for more than five classes."""
    scores: dict[str, Any] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "macro_accuracy": MulticlassAccuracy(num_classes, average="macro"),
    }
    if num_classes > 5:
        scores["accuracy_top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
    return MetricCollection(scores, prefix=prefix)


class ClassPrecision(MultilabelAveragePrecision):
    """torchmetrics' average precision of each class, (K,) float; NaN for a class of which there is no image.

    torchmetrics itself gives such a class 0, which would lower the mean.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average=None)

    def compute(self) -> Tensor:  # type: ignore[override]
        """The average precisions; all processes have the same."""
        occurs = dim_zero_cat(self.target).sum(dim=0) > 0
        return torch.where(occurs, super().compute(), torch.nan)
