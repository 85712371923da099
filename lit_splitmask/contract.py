"""The contract between data and training: what modules and callbacks ask the trainer's datamodule for.

The datamodules of this project meet :class:`TrainingData`. Your own may meet all of it, part of it or none: what it does not
offer is unknown, and the checks that need it are skipped. Batches are dicts with ``image`` (B, C, H, W) uint8; for labelled
images, ``label`` (B,) int64; and for methods that tell training images apart, ``index`` (B,) int64 in [0, ``num_train_images``).
An example with ``num_classes`` alone::

    import torch
    from lightning import LightningDataModule, Trainer
    from torch.utils.data import DataLoader

    from lit_splitmask.models import ViTConfig
    from lit_splitmask.modules import Classify


    class Noise(LightningDataModule):
        num_classes = 2

        def train_dataloader(self):
            images = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8)
            return DataLoader([{"image": image, "label": i % 2} for i, image in enumerate(images)], batch_size=8)


    module = Classify(backbone=ViTConfig(size="tiny", patch_size=8, image_size=32))
    Trainer(max_epochs=1).fit(module, datamodule=Noise())
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

from torch.utils.data import DataLoader, Dataset


class TrainingData(Protocol):
    """What a datamodule offers after its ``setup``, as properties or plain attributes. None means unknown."""

    @property
    def image_size(self) -> int | None:
        """Side of the square training crops, in pixels."""

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
        """Per-channel mean of the pixels, scaled to [0, 1]."""

    @property
    def pixel_std(self) -> Sequence[float] | None:
        """Per-channel standard deviation of the pixels, scaled to [0, 1]."""

    @property
    def pixel_window(self) -> tuple[float, float] | None:
        """The values of images of more than 8 bits that became 0 and 255."""

    @property
    def crop_ratio(self) -> float | None:
        """Share of the short side that the bicubic centre crops of evaluation cover; None without such crops."""

    @property
    def crop_sizes(self) -> Sequence[int] | None:
        """Sides of the crops of a training image, in pixels: those of ``image``, ``image_1``, … in a batch."""

    @property
    def images_per_step(self) -> int | None:
        """Images per optimizer step, over all processes and accumulated batches."""

    @property
    def num_train_images(self) -> int | None:
        """Number of different training images."""

    @property
    def all_labelled(self) -> bool | None:
        """Whether every training image has a class as ``label``; label maps and boxes do not count."""

    @property
    def unlabelled_share(self) -> float | None:
        """Share of each training batch that is images without labels, beside those with labels."""

    @property
    def pool(self) -> Sequence[Path]:
        """Folders of additional training images without labels."""

    @property
    def predict_paths(self) -> Sequence[str]:
        """Names of the images to predict, by the ``index`` in a batch."""

    @property
    def predict_problems(self) -> Mapping[str, str]:
        """Why further images cannot be predicted, by name."""

    @property
    def fitting_dataloader(self) -> Callable[[int | None], DataLoader] | None:
        """Makes a loader of training crops for one process, independent of the training loader, to fit or time something.

        The argument is the least number of crops; None means one crop of each image.
        """

    @property
    def fitted_file(self) -> Callable[[str], Path] | None:
        """Names the file in which to keep what was fitted on the training crops, for later runs.

        The argument is all that it depends on besides the data. The same text and the same crops give the same file.
        """

    @property
    def split_images(self) -> Callable[[str], Dataset | None] | None:
        """Gives the images of a split without augmentation (``image`` uint8, ``label``), or None without such a split."""


class ClassificationData(Protocol):
    """What a datamodule of images with a class each offers in addition to :class:`TrainingData`, for class weights."""

    @property
    def class_shares(self) -> Sequence[float]:
        """How often training draws images of each class, by label: shares or counts."""


class RegressionData(Protocol):
    """What a datamodule of images with a number each offers in addition to :class:`TrainingData`.

    In batches ``label`` is (B,) float. ``class_names`` holds the name of what is measured, and ``num_classes`` is 1.
    """

    @property
    def train_targets(self) -> Sequence[float]:
        """The numbers of the training images."""


class SegmentationData(Protocol):
    """What a datamodule of images with label maps offers in addition to :class:`TrainingData`."""

    @property
    def void(self) -> int:
        """Value of pixels without a label in the label maps."""

    def smallest_image(self) -> tuple[str, int]:
        """Name and shorter side, in pixels at evaluation size, of the image whose shorter side is the smallest."""


class DetectionData(Protocol):
    """What a datamodule of images with boxes offers in addition to :class:`TrainingData`."""

    @property
    def masks(self) -> bool:
        """Whether objects have masks."""

    @property
    def category_ids(self) -> Sequence[int]:
        """Ids of the classes in the annotation files, by label; empty without annotations."""

    @property
    def predict_image_ids(self) -> Sequence[int]:
        """Ids of the images to predict, by the ``index`` in a batch."""

    @property
    def is_annotated(self) -> bool:
        """Whether annotation files give the images their ids."""

    def smallest_image(self) -> tuple[str, int]:
        """Name and shorter side, in pixels at evaluation size, of the image whose shorter side is the smallest."""


def training_data(datamodule: Any) -> TrainingData:
    """A datamodule as :class:`TrainingData`: itself if it offers everything, otherwise with None or () for what it lacks.

    Args:
        datamodule: Any datamodule, or None. No property is read until it is asked for, as it may need ``setup``.
    """
    return cast(TrainingData, datamodule if _meets(datamodule, TrainingData) else _PartlyKnown(datamodule))


def has_several_labels(datamodule: Any) -> bool:
    """Whether a datamodule says, by ``several_labels``, that its ``label`` is (B, K) float of 0 and 1: any number of classes."""
    return bool(getattr(datamodule, "several_labels", False))


def classification_data(datamodule: Any) -> ClassificationData | None:
    """A datamodule as :class:`ClassificationData`, or None if a part of that is missing."""
    return cast(ClassificationData, datamodule) if _meets(datamodule, ClassificationData) else None


def regression_data(datamodule: Any) -> RegressionData | None:
    """A datamodule as :class:`RegressionData`, or None if a part of that is missing."""
    return cast(RegressionData, datamodule) if _meets(datamodule, RegressionData) else None


def segmentation_data(datamodule: Any) -> SegmentationData | None:
    """A datamodule as :class:`SegmentationData`, or None if a part of that is missing."""
    return cast(SegmentationData, datamodule) if _meets(datamodule, SegmentationData) else None


def detection_data(datamodule: Any) -> DetectionData | None:
    """A datamodule as :class:`DetectionData`, or None if a part of that is missing."""
    return cast(DetectionData, datamodule) if _meets(datamodule, DetectionData) else None


_EMPTY: dict[str, Any] = {"class_names": (), "pool": (), "predict_paths": (), "predict_problems": MappingProxyType({})}
"""Values that mean unknown, where that is not None."""


class _PartlyKnown:
    """A datamodule that offers a part of :class:`TrainingData`; the rest is unknown."""

    def __init__(self, datamodule: Any) -> None:
        self._datamodule = datamodule

    def __getattr__(self, name: str) -> Any:
        if name not in _members(TrainingData):
            raise AttributeError(f"TrainingData has no {name}.")
        value = getattr(self._datamodule, name) if _offers(self._datamodule, name) else None
        return _EMPTY.get(name) if value is None else value


def _members(contract: type) -> list[str]:
    return [name for name in vars(contract) if not name.startswith("_")]


def _meets(datamodule: Any, contract: type) -> bool:
    return all(_offers(datamodule, name) for name in _members(contract))


def _offers(datamodule: Any, name: str) -> bool:
    """Whether a datamodule has an attribute, without reading its value."""
    missing = object()
    return inspect.getattr_static(datamodule, name, missing) is not missing
