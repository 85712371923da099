"""What ``OverfitAwareCheckpoint`` finds out before training: images, steps, and whether a module can be measured."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lit_splitmask.augment.evaluate import EvalTransform
from lit_splitmask.contract import training_data
from lit_splitmask.distributed import alone
from lit_splitmask.errors import UserError
from lit_splitmask.loading.crops import IndexedImages
from lit_splitmask.loading.samples import KeyedDataset
from lit_splitmask.selection.descriptors import descriptors
from lit_splitmask.selection.items import labels_of
from lit_splitmask.selection.snapshot import BATCH_SIZE, ImageSubset, undisturbed

FEW = 2
"""Images on which ``features`` is tried out."""

MAX_READ = 2 * BATCH_SIZE
"""Training images, and held-out images, whose labels are checked before training. The others are checked when measured."""


def total_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole training.

    Raises:
        UserError: They are unknown.
    """
    steps = trainer.estimated_stepping_batches
    if math.isfinite(steps) and steps >= 1:
        return int(steps)
    if math.isfinite(trainer.num_training_batches) or trainer.max_epochs == -1:
        raise UserError(
            "OverfitAwareCheckpoint must know how long training is: set the trainer's max_epochs or max_steps."
        )
    raise UserError(
        "OverfitAwareCheckpoint must know how long training is, but the training loader has no length, as with an "
        f"IterableDataset, so max_epochs={trainer.max_epochs} is not enough: set the trainer's max_steps, or limit_train_batches "
        "to a number of batches."
    )


def of_one_size(images: Any, image_size: int | None) -> Any:
    """A split's images, from which batches can be made: whole images of this project (those of segmentation and detection have
    different sizes) become centre crops.

    Args:
        images: The images of a split; None if there are none.
        image_size: Side of the crops.
    """
    if image_size is None or not isinstance(images, KeyedDataset) or isinstance(images, IndexedImages):
        return images
    transform = EvalTransform(image_size, crop_ratio=1.0)
    return IndexedImages(images.samples, images.read, transform=transform, channels=images.channels)


def images_per_step(trainer: Trainer, module: LightningModule) -> int | None:
    """Images per optimizer step, over all processes and accumulated batches; None if only a batch can tell.

    An attribute ``images_per_step`` of the module or of the datamodule comes first, then the loader's batch size.
    """
    data = training_data(getattr(trainer, "datamodule", None))
    for known in (getattr(module, "images_per_step", None), data.images_per_step):
        if isinstance(known, int) and known > 0:
            return known
    sizes = [_batch_size(loader) for loader in _loaders(trainer.train_dataloader)]
    largest = max((size for size in sizes if size is not None), default=None)
    return None if largest is None else per_step(largest, trainer)


def per_step(batch_size: int, trainer: Trainer) -> int:
    """Images per optimizer step, from those in a batch of one process."""
    return batch_size * trainer.world_size * trainer.accumulate_grad_batches


def _loaders(loaders: Any) -> Iterator[Any]:
    """The loaders of a trainer, which may be in lists and dicts."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        for loader in loaders:
            yield from _loaders(loader)
    elif loaders is not None:
        yield loaders


def _batch_size(loader: Any) -> int | None:
    sizes = [getattr(part, "batch_size", None) for part in (loader, getattr(loader, "batch_sampler", None))]
    return next((size for size in sizes if isinstance(size, int)), None)


def images_in(batch: Any) -> int | None:
    """Number of images in a batch: the rows of its first tensor (B, …, H, W), otherwise of its first tensor; None if unknown."""
    tensors = list(_tensors(batch))
    images = [tensor for tensor in tensors if tensor.ndim >= 3] or tensors
    return len(images[0]) if images else None


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        if batch.ndim:
            yield batch
    elif isinstance(batch, Mapping | list | tuple):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(part)


def validation_images(trainer: Trainer) -> Any:
    """The dataset of the first validation loader; None if it cannot be read by index."""
    loader = next(_loaders(trainer.val_dataloaders), None)
    dataset = getattr(loader, "dataset", None)
    return dataset if _has_indices(dataset) else None


def _has_indices(dataset: Any) -> bool:
    is_indexed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    return is_indexed and not isinstance(dataset, IterableDataset | DataLoader | Mapping)


def pair_of(images: Any) -> tuple[Any, Any]:
    """The training and held-out images that the user gave.

    Raises:
        UserError: They are not two datasets with indices and a length.
    """
    if not isinstance(images, tuple | list) or len(images) != 2:
        raise UserError(
            f"OverfitAwareCheckpoint(images=…) is a {type(images).__name__}, not a pair: give images=(train, held_out), two "
            "datasets."
        )
    for dataset in images:
        if dataset is not None and not _has_indices(dataset):
            instead = "its dataset (loader.dataset)" if isinstance(dataset, DataLoader) else "datasets with both"
            raise UserError(
                f"OverfitAwareCheckpoint(images=…) has a {type(dataset).__name__}, which has no indices or no length: give "
                f"{instead}, as the same images are measured each time."
            )
    return images[0], images[1]


def check_images(
    module: LightningModule,
    train: ImageSubset,
    held_out: ImageSubset,
    *,
    num_classes: int,
    option: str,
    precision: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Tries ``features`` on a few images, and reads the labels of some. Changes neither the module nor any random state.

    Args:
        module: The module.
        train: Training images; may be empty.
        held_out: Held-out images.
        num_classes: Number of classes; below 2 no labels are checked.
        option: Where the user sets ``num_classes``.
        precision: Makes the context in which the network computes.

    Raises:
        UserError: The images cannot form a batch, ``features`` fails on them or returns another shape than one of those that
            :func:`descriptors` takes, or a label is missing or out of range.
    """
    with undisturbed(module):
        few = held_out.read(held_out.indices[:FEW])["image"].to(module.device)
        if callable(getattr(module, "features", None)):
            with alone(), precision():
                descriptors(_features(module, few), few)
        if num_classes >= 2:
            for subset, name in ((train, "training"), (held_out, "held-out")):
                _check_labels(subset.thinned(MAX_READ), subset, name, num_classes=num_classes, option=option)


def _features(module: Any, images: Tensor) -> Any:
    try:
        return module.features(images)
    except UserError:
        raise
    except Exception as error:
        what = str(error).strip().splitlines()[0] if str(error).strip() else ""
        failed = (
            f"features(images) fails on images of the shape {tuple(images.shape)} and type {images.dtype} "
            f"({type(error).__name__}: {what})."
        )
        if isinstance(module.features, nn.Module):
            raise UserError(
                f"{failed} features is a layer here ({type(module.features).__name__}), and gets the images as the dataset gives "
                "them: give the layer another name, such as layers, and define a method features(self, images) that converts "
                "and normalises them as training_step does, for example return self.layers(images.float() / 255)."
            ) from error
        raise UserError(
            f"{failed} It gets the images as the dataset gives them: let it convert, normalise and resize them as training_step "
            "does, and return one descriptor per image."
        ) from error


def _check_labels(read: ImageSubset, subset: ImageSubset, name: str, *, num_classes: int, option: str) -> None:
    parts = [read.batch(number) for number in range(read.num_batches)]
    if not parts:
        return
    labels = [part["label"] for part in parts if isinstance(part.get("label"), Tensor)]
    together = {"label": torch.cat(labels)} if len(labels) == len(parts) else {}
    found = labels_of(together, num_classes, option).unique()
    if name == "training" and len(found) < 2 and len(read) == len(subset):
        raise UserError(
            f"{option}={num_classes}, but all training images to measure on have the label {int(found[0])}: give images of at "
            f"least two classes, or set {option}=0 to measure without labels."
        )


def check_same_settings(stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Checks that a resumed run chooses its checkpoints as it did before.

    Args:
        stored: The settings of the run to resume.
        now: Those of this one.

    Raises:
        UserError: They differ.
    """
    changes = "; ".join(
        f"{name} was {stored.get(name)} and is now {value}" for name, value in now.items() if stored.get(name) != value
    )
    if changes:
        raise UserError(
            f"The run to resume chose its checkpoints with other settings: {changes}. Resume it with the same settings."
        )
