"""Images and labels from users' datasets: items that are dicts, tuples or bare tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from lit_splitmask.errors import UserError

ITEM = "a dict with image and label, a tuple (image, label), or an image alone"


def as_batch(items: Sequence[Any]) -> dict[str, Any]:
    """One batch of a dataset's items, with ``image`` (B, C, H, W) and, if every item has one, ``label`` (B,) int64.

    Args:
        items: Dicts with ``image`` and ``label``, tuples or lists of an image and a label, or images. Images are tensors or
            arrays (C, H, W) of the same size; labels are whole numbers.

    Raises:
        UserError: An item is none of these, or the images differ in shape.
    """
    if all(isinstance(item, Mapping) and "image" in item for item in items):
        try:
            return dict(default_collate(list(items)))
        except (RuntimeError, TypeError, KeyError):
            pass  # sizes or keys differ: the first are reported below, the second do not matter
    images = [_image(item) for item in items]
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise UserError(
            f"The images to measure on have different shapes, such as {shapes[0]} and {shapes[-1]}, and cannot form a batch: "
            "let the dataset resize or crop them to one size."
        )
    labels = [_label(item) for item in items]
    batch = {"image": torch.stack(images)}
    return batch | ({} if None in labels else {"label": torch.tensor(labels)})


def _image(item: Any) -> Tensor:
    image = item
    if isinstance(item, Mapping):
        if "image" not in item:
            raise UserError(
                f"An image to measure on is a dict with the keys {', '.join(map(str, item))}, without image: let the dataset "
                f"give {ITEM}."
            )
        image = item["image"]
    elif isinstance(item, tuple | list) and item:
        image = item[0]
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
    if not isinstance(image, Tensor):
        raise UserError(
            f"An image to measure on is a {type(image).__name__}, not a tensor: let the dataset give {ITEM}, with the image as "
            "a tensor (C, H, W), for example by torchvision.transforms.v2.PILToTensor()."
        )
    return image


def _label(item: Any) -> int | None:
    """The label of an item; None if it has none that is a whole number."""
    label = None
    if isinstance(item, Mapping):
        label = item.get("label")
    elif isinstance(item, tuple | list) and len(item) > 1:
        label = item[1]
    if isinstance(label, np.ndarray | np.generic):
        label = torch.as_tensor(label)
    if isinstance(label, Tensor) and label.numel() == 1:
        label = label.item()
    return int(label) if isinstance(label, int) else None


def labels_of(batch: Mapping[str, Any], num_classes: int, option: str = "num_classes") -> Tensor:
    """The labels of a batch, (B,) int64.

    Args:
        batch: A batch of :func:`as_batch`.
        num_classes: Number of classes, at least 2.
        option: Where the user sets it.

    Raises:
        UserError: The images have no labels, or labels outside 0 to ``num_classes`` - 1.
    """
    labels = batch.get("label")
    if isinstance(labels, Tensor) and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not isinstance(labels, Tensor) or labels.ndim != 1 or not is_whole:
        raise UserError(
            f"{option}={num_classes}, but some of the images to measure on have no label that is a whole number: let the "
            f"dataset give {ITEM.removesuffix(', or an image alone')}, or set {option}=0 to measure without labels."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise UserError(
            f"{option}={num_classes}, but an image to measure on has the label {low}: labels count from 0. Leave out images "
            f"without a label, or set {option}=0 to measure without labels."
        )
    if high >= num_classes:
        raise UserError(
            f"{option}={num_classes} allows the labels 0 to {num_classes - 1}, but an image to measure on has the label {high}: "
            f"set {option} to the number of classes, at least {high + 1}, or let the labels count from 0."
        )
    return labels.long()
