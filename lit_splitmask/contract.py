"""The contract between data and training: what modules and callbacks take from a trainer's datamodule.

This project's datamodules meet :class:`TrainingData`. Your own may meet all of it, a part of it or nothing: whatever is missing
counts as not known, and the checks that need it are skipped.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, cast

from torch.utils.data import DataLoader, Dataset


class TrainingData(Protocol):
    """What a datamodule offers, once it is set up. None means that it is not known."""

    @property
    def image_size(self) -> int | None:
        """Side of the square crops, in pixels."""

    @property
    def channels(self) -> int | None:
        """Channels of the images, 1 or 3."""

    @property
    def num_classes(self) -> int | None:
        """Number of classes; 0 without labels."""

    @property
    def class_names(self) -> Sequence[str]:
        """Class names by label; empty without labels."""

    @property
    def pixel_mean(self) -> Sequence[float] | None:
        """Mean of each channel, of pixels in [0, 1]."""

    @property
    def pixel_std(self) -> Sequence[float] | None:
        """Standard deviation of each channel, of pixels in [0, 1]."""

    @property
    def crop_sizes(self) -> Sequence[int] | None:
        """Sides of the crops of one training image, in pixels: ``image``, ``image_1``, …."""

    @property
    def images_per_step(self) -> int | None:
        """Images that one optimizer step sees, over all processes and accumulated batches."""

    @property
    def num_train_images(self) -> int | None:
        """Number of training images that are used."""

    @property
    def all_labelled(self) -> bool | None:
        """Whether every training image has a label."""

    @property
    def pool(self) -> Sequence[Path]:
        """Folders of more images without labels among the training images."""

    @property
    def predict_paths(self) -> Sequence[str]:
        """Names of the images that are predicted, by index."""

    @property
    def fitting_dataloader(self) -> Callable[[int | None], DataLoader] | None:
        """Makes a loader of at least so many training crops (None: one of each image) for one process, apart from training."""

    @property
    def split_images(self) -> Callable[[str], Dataset | None] | None:
        """Gives the images of a split as they are evaluated (``image`` uint8, ``label``); None if there is no such split."""


class SegmentationData(TrainingData, Protocol):
    """What a datamodule of images with label maps offers beside."""

    @property
    def void(self) -> int:
        """The value of the maps that means no label."""

    def smallest_image(self) -> tuple[str, int]:
        """Name and shorter side, in pixels, of the image with the shortest side at the size of evaluation."""


class DetectionData(TrainingData, Protocol):
    """What a datamodule of images with boxes offers beside."""

    @property
    def masks(self) -> bool:
        """Whether objects have masks."""

    @property
    def category_ids(self) -> Sequence[int]:
        """The annotation files' ids of the classes, by label; empty without annotations."""

    @property
    def predict_image_ids(self) -> Sequence[int]:
        """Ids of the images that are predicted, by index."""

    @property
    def is_annotated(self) -> bool:
        """Whether there are annotation files, which give images their ids."""

    def smallest_image(self) -> tuple[str, int]:
        """Name and shorter side, in pixels, of the image with the shortest side at the size of evaluation."""


@dataclass(frozen=True)
class PartlyKnown:
    """What is known of a datamodule that does not meet all of :class:`TrainingData`."""

    image_size: int | None = None
    channels: int | None = None
    num_classes: int | None = None
    class_names: Sequence[str] = ()
    pixel_mean: Sequence[float] | None = None
    pixel_std: Sequence[float] | None = None
    crop_sizes: Sequence[int] | None = None
    images_per_step: int | None = None
    num_train_images: int | None = None
    all_labelled: bool | None = None
    pool: Sequence[Path] = ()
    predict_paths: Sequence[str] = ()
    fitting_dataloader: Callable[[int | None], DataLoader] | None = None
    split_images: Callable[[str], Dataset | None] | None = None


def training_data(datamodule: Any) -> TrainingData:
    """A datamodule as :class:`TrainingData`: itself if it meets the contract, else what is known of it (None: nothing)."""
    names = [field.name for field in fields(PartlyKnown)]
    offered = [name for name in names if _offers(datamodule, name)]
    if offered == names:
        return cast(TrainingData, datamodule)
    return PartlyKnown(**{name: getattr(datamodule, name) for name in offered})


def segmentation_data(datamodule: Any) -> SegmentationData | None:
    """A datamodule as :class:`SegmentationData`, or None if it does not meet that contract."""
    meets = all(_offers(datamodule, name) for name in ("void", "smallest_image"))
    return cast(SegmentationData, datamodule) if meets else None


def detection_data(datamodule: Any) -> DetectionData | None:
    """A datamodule as :class:`DetectionData`, or None if it does not meet that contract."""
    names = ("masks", "category_ids", "predict_image_ids", "is_annotated", "smallest_image")
    return cast(DetectionData, datamodule) if all(_offers(datamodule, name) for name in names) else None


def _offers(datamodule: Any, name: str) -> bool:
    """Whether it has an attribute, without asking for its value, which may not be there before the datamodule is set up."""
    missing = object()
    return inspect.getattr_static(datamodule, name, missing) is not missing
