"""The dataset of images with objects: reads an image by its key (pass, index), and maps its boxes and masks to a view."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_splitmask.annotations import rle
from lit_splitmask.annotations.coco_objects import Annotations
from lit_splitmask.augment.detect import MakeView, View
from lit_splitmask.loading.sampler import Key
from lit_splitmask.loading.samples import KeyedDataset, Read, Samples, parse_key, writable_tensor

MIN_SIDE = 1.0
"""Pixels; smaller objects are left out of a training view."""


class AnnotatedSamples(Samples):
    """The images of a split with their annotations.

    Args:
        files: Names of the images, as the reader expects them.
        annotations: Annotations of at least these images.
        rows: (N,) integers, index of each image in the annotations.

    Raises:
        ValueError: The numbers of files and rows differ.
    """

    def __init__(self, files: Iterable[str], annotations: Annotations, rows: np.ndarray) -> None:
        super().__init__(files, np.full(len(rows), -1))
        self.annotations, self.rows = annotations, np.asarray(rows, dtype=np.int64)

    def subset(self, indices: Sequence[int]) -> "AnnotatedSamples":
        """The images at these indices, in that order."""
        files = [self.files[index] for index in indices]
        return AnnotatedSamples(files, self.annotations, self.rows[list(indices)])


class CocoImages(KeyedDataset):
    """Views of the images of a split; the same key gives the same pixels, boxes and masks in every process and run.

    Args:
        samples: Images of the split; those without annotations are only predicted on.
        read: Reads an image by its name: (H, W, 3) uint8.
        view: Makes the view of an image.
        training: Whether to return ``target``, in the view, instead of ``truth``, as in the file.
        masks: Whether objects have masks.
        channels: 3, or 1 for luminance only.
        seed: Seed of the augmentation.
    """

    def __init__(
        self,
        samples: Samples,
        read: Read,
        *,
        view: MakeView,
        training: bool,
        masks: bool,
        channels: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(samples, read, channels=channels, seed=seed)
        self.annotated = samples if isinstance(samples, AnnotatedSamples) else None
        self.view, self.training, self.masks = view, training, masks

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Any]:
        """Makes a batch of views.

        Returns:
            ``image``, a list of (C, h, w) uint8 of different sizes; ``size``, a list of heights and widths on disk; ``index``
            (B,) int64. With annotations also, in training, ``target``, a list of dictionaries of ``boxes`` (n, 4) float32 (left,
            top, right, bottom), ``labels`` (n,) int64 and ``masks`` (n, h, w) bool, without crowds; in evaluation ``truth``, a
            list of dictionaries of ``boxes`` (n, 4) float64 (left, top, width, height), ``labels``, ``iscrowd``, ``area``, and
            ``masks`` as run lengths.

        Raises:
            UserError: A file is missing, damaged, or was replaced after the scan.
        """
        items = [self._item(*parse_key(key)) for key in keys]
        batch: dict[str, Any] = {name: [item[name] for item in items] for name in items[0]}
        return batch | {"index": torch.tensor(batch["index"])}

    def _item(self, pass_number: int, index: int) -> dict[str, Any]:
        pixels = self.read(self.samples.files[index])
        size = (int(pixels.shape[0]), int(pixels.shape[1]))
        view = self.view(*size, self.augment_seed(pass_number, index))
        image = writable_tensor(self.to_channels(view.image(pixels)))
        item = {"image": image.permute(2, 0, 1), "size": size, "index": index}
        if self.annotated is None:
            return item
        objects = self.annotated.annotations.objects(int(self.annotated.rows[index]))
        if self.training:
            return item | {"target": self._target(objects, view, size)}
        return item | {"truth": self._truth(objects, size)}

    def _truth(self, objects: list[dict[str, Any]], size: tuple[int, int]) -> dict[str, Any]:
        """The objects as in the file."""
        truth: dict[str, Any] = {
            "boxes": torch.tensor([one["bbox"] for one in objects], dtype=torch.float64).reshape(-1, 4),
            "labels": torch.tensor([one["label"] for one in objects], dtype=torch.int64),
            "iscrowd": torch.tensor([one["iscrowd"] for one in objects], dtype=torch.int64),
            "area": torch.tensor([one["area"] for one in objects], dtype=torch.float64),
        }
        if self.masks:
            truth["masks"] = [rle.rasterise(one["segmentation"], size) for one in objects]
        return truth

    def _target(self, objects: list[dict[str, Any]], view: View, size: tuple[int, int]) -> dict[str, Tensor]:
        """The objects in the view, without crowds and those that are too small or outside."""
        objects = [one for one in objects if not one["iscrowd"]]
        edges = np.array([one["bbox"] for one in objects], dtype=np.float64).reshape(-1, 4)
        full = view.boxes(np.concatenate([edges[:, :2], edges[:, :2] + edges[:, 2:]], axis=1))
        clipped = np.clip(full, 0, [view.out_width, view.out_height] * 2)
        boxes, labels, masks = [], [], []
        for one, box, full_box in zip(objects, clipped, full, strict=True):
            if not _is_large_enough(box):
                continue
            if self.masks:
                mask = view.mask(one["segmentation"], size)
                if not mask.any():
                    continue
                if np.abs(box - full_box).max() > MIN_SIDE:  # the view cuts the object
                    box = _bounding_box(mask)
                masks.append(torch.from_numpy(mask))
            boxes.append(box)
            labels.append(one["label"])
        target = {
            "boxes": torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(-1, 4)),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }
        if self.masks:
            shape = (0, view.out_height, view.out_width)
            target["masks"] = torch.stack(masks) if masks else torch.zeros(shape, dtype=torch.bool)
        return target


def _is_large_enough(box: np.ndarray) -> bool:
    return bool((box[2:] - box[:2] >= MIN_SIDE).all())


def _bounding_box(mask: np.ndarray) -> np.ndarray:
    """Left, top, right and bottom of the pixels that are set in a mask (H, W)."""
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float64)
