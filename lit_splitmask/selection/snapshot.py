"""A network in training and the images that signals are measured on, without disturbing the training."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_splitmask.distributed import alone, rank, sum_over_processes, world_size
from lit_splitmask.errors import UserError
from lit_splitmask.seeding import generator_for
from lit_splitmask.selection.descriptors import descriptors
from lit_splitmask.selection.items import as_batch, labels_of

BATCH_SIZE = 128
NUM_MASK_DRAWS = 4
"""Draws of masks over which the held-out loss is repeated, to estimate its noise."""

ValueAndError = tuple[float, float]
"""Value of a signal and its standard error; NaN where unknown."""


class ImageSubset:
    """Evenly spaced images of a dataset, the same at every measurement, read in the main process.

    Args:
        dataset: Gives dicts with ``image`` (C, H, W) and, if there are labels, ``label``; tuples (image, label); or images.
        max_images: Number of images to use at most.

    Attributes:
        indices: Their indices in the dataset.
    """

    def __init__(self, dataset: Any, max_images: int) -> None:
        self._dataset = dataset
        self.indices = _evenly_spaced(len(dataset), max_images)

    def __len__(self) -> int:
        return len(self.indices)

    def thinned(self, max_images: int) -> "ImageSubset":
        """At most ``max_images`` of these images, evenly spaced."""
        subset = ImageSubset(self._dataset, 0)
        subset.indices = [self.indices[position] for position in _evenly_spaced(len(self), max_images)]
        return subset

    @property
    def num_batches(self) -> int:
        """Number of batches of :data:`BATCH_SIZE` images; the last may be smaller."""
        return -(-len(self) // BATCH_SIZE)

    def batch_indices(self, number: int) -> list[int]:
        """Indices in the dataset of one batch, the same on any number of processes."""
        return self.indices[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]

    def batch(self, number: int) -> dict[str, Tensor]:
        """One batch, the same on any number of processes."""
        return self.read(self.batch_indices(number))

    def read(self, indices: list[int]) -> dict[str, Tensor]:
        """A batch of the images with these indices in the dataset.

        Raises:
            UserError: They cannot form a batch.
        """
        if hasattr(self._dataset, "__getitems__"):
            found = self._dataset.__getitems__(indices)  # a batch in this project, a list of items in torch's Subset
            return found if isinstance(found, dict) else as_batch(found)
        return as_batch([self._dataset[index] for index in indices])

    def own_batches(self) -> range:
        """Numbers of the batches that this process computes."""
        return range(rank(), self.num_batches, world_size())


def _evenly_spaced(total: int, max_count: int) -> list[int]:
    """At most ``max_count`` indices below ``total``, evenly spaced."""
    return np.linspace(0, total - 1, min(total, max_count)).round().astype(int).tolist() if total else []


class Snapshot:
    """A network at one step of training, with the training and held-out images that signals are measured on.

    Features and the held-out loss are computed once, when they are first used.

    Args:
        module: Has ``features``, from images (B, C, H, W) to (B, D), (B, N, D) or (B, D, H, W).
        train: Training images.
        held_out: Held-out images.
        num_classes: Number of classes; 0 without labels.
        seed: Seed of the masks.
        precision: Makes the context in which the network computes, such as the trainer's ``precision_plugin.val_step_context``.
    """

    def __init__(
        self,
        module: nn.Module,
        train: ImageSubset,
        held_out: ImageSubset,
        num_classes: int,
        seed: int,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.module: Any = module  # nn.Module does not declare the attribute device
        self.train, self.held_out = train, held_out
        self.num_classes, self.seed, self.precision = num_classes, seed, precision

    @cached_property
    def train_features(self) -> tuple[Tensor, Tensor]:
        """Features (N, D) float32 and labels (N,) int64, on the CPU."""
        return self._features(self.train)

    @cached_property
    def held_out_features(self) -> tuple[Tensor, Tensor]:
        """Features (M, D) float32 and labels (M,) int64, on the CPU."""
        return self._features(self.held_out)

    @cached_property
    def held_out_loss(self) -> ValueAndError:
        """The masked-modelling loss on held-out images."""
        return self.loss(self.held_out)

    def loss(self, images: ImageSubset) -> ValueAndError:
        """The masked-modelling loss with fixed masks and its standard error over several draws; NaN without such a loss."""
        module, objective = self.module, getattr(self.module, "objective", None)
        loss_name = getattr(objective, "held_out_loss", None)
        if loss_name is None:
            return float("nan"), float("nan")
        losses = torch.zeros(NUM_MASK_DRAWS, images.num_batches, dtype=torch.float64)
        for number in images.own_batches():
            views = module.views(images.batch(number)["image"].to(module.device))
            for draw in range(NUM_MASK_DRAWS):
                generator = generator_for(self.seed, "signal masks", draw, number)
                with alone(), self.precision():
                    losses[draw, number] = float(objective(views, generator)[loss_name])  # type: ignore[misc]
        losses = losses.to(module.device if module.device.type != "mps" else "cpu")  # MPS has no float64
        sum_over_processes(losses)
        sizes = losses.new_tensor([len(images.batch_indices(number)) for number in range(images.num_batches)])
        means = losses @ (sizes / sizes.sum())
        return float(means.mean()), float(means.std() / NUM_MASK_DRAWS**0.5)

    def _features(self, images: ImageSubset) -> tuple[Tensor, Tensor]:
        """Each process computes some of the batches; the sum over the processes then holds every batch once."""
        features: Tensor | None = None
        labels = torch.zeros(len(images), dtype=torch.int64, device=self.module.device)
        # A process without a batch of its own computes the first one, to learn the width of the features.
        for number in images.own_batches() or range(min(1, images.num_batches)):
            batch = images.batch(number)
            with alone(), self.precision():
                pixels = batch["image"].to(self.module.device)
                computed = descriptors(self.module.features(pixels), pixels)
            if features is None:
                features = computed.new_zeros(len(images), computed.shape[1])
            if number in images.own_batches():
                rows = slice(number * BATCH_SIZE, number * BATCH_SIZE + len(computed))
                features[rows] = computed
                if self.num_classes >= 2:
                    labels[rows] = labels_of(batch, self.num_classes).to(labels.device)
        if features is None:
            raise UserError(
                "There are no images to compute features of: give at least one training and one held-out image."
            )
        sum_over_processes(features)
        sum_over_processes(labels)
        return features.cpu(), labels.cpu()


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluates without gradients; restores the modes of all submodules and all random states at the end."""
    modes = [(part, part.training) for part in module.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    module.eval()
    try:
        with torch.random.fork_rng(), torch.no_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for part, mode in modes:
            part.training = mode
