"""The factors on the loss of images by their class."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_splitmask.contract import ClassificationData
from lit_splitmask.errors import UserError

ClassWeights = Literal["balanced"] | list[float] | None


def check_class_weights(given: ClassWeights) -> None:
    """Checks weights before the classes are known.

    Raises:
        UserError: They are neither ``balanced`` nor numbers of at least 0, at least one of them above 0.
    """
    if given is None or given == "balanced":
        return
    if isinstance(given, str):
        raise UserError(f"class_weights is {given!r}; it must be balanced, or a list of one number per class.")
    if not given or not all(math.isfinite(weight) and weight >= 0 for weight in given) or not any(given):
        raise UserError(f"class_weights is {given}; its numbers must be at least 0, and at least one above 0.")


def tensor_of(
    given: ClassWeights, names: Sequence[str], data: ClassificationData | None, *, several: bool = False
) -> Tensor | None:
    """The weights as a tensor (K,) float; None for none.

    ``balanced`` divides by the share of a class among the images that training draws, so that every class counts equally, and
    the mean over these images is 1. What ``data.balance`` has already balanced is not balanced again.

    Args:
        given: ``balanced``, or a number per class.
        names: The classes, K.
        data: The source of the shares of the classes; None if the datamodule has none.
        several: Whether an image may have several labels. The weights are then of the images that have a class, against those
            that do not; ``balanced`` is the number of the latter over that of the former.

    Raises:
        UserError: The list has another length than ``names``, or the shares are unknown.
    """
    if given is None:
        return None
    if given != "balanced":
        if len(given) != len(names):
            raise UserError(
                f"class_weights has {len(given)} numbers, but there are {len(names)} classes: give one number for each, in this "
                f"order: {', '.join(names)}."
            )
        return torch.tensor(given)
    if data is None:
        raise UserError(
            "class_weights=balanced needs to know how often each class occurs, which this datamodule does not say: give it the "
            "attribute class_shares (such as the number of training images of each class), or pass a list of weights."
        )
    shares = torch.tensor(data.class_shares, dtype=torch.float64)
    present = shares > 0
    if several:
        return torch.where(present & (shares < 1), (1 - shares) / shares.clamp(min=1e-12), 1.0).float()
    shares = shares / shares.sum() * present.sum()
    return torch.where(present, 1 / shares, 1.0).float()
