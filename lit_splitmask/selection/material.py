"""What a network in training is measured on, without disturbing it."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from lit_splitmask.distributed import alone, rank, sum_over_processes, world_size
from lit_splitmask.errors import UserError
from lit_splitmask.seeding import generator_for

BATCH_SIZE = 128
NUM_MASKS = 4
"""Draws of masks over which the held-out loss is repeated, to know its noise."""

Value = tuple[float, float]
"""A signal and its standard error; NaN where they are unknown."""


class Images:
    """A part of a dataset, read in the main process: evenly spaced images, the same at every measurement.

    Args:
        dataset: Gives dicts with ``image`` (C, H, W) uint8 and, where there are labels, ``label``.
        most: Images that are used.
    """

    def __init__(self, dataset: Any, most: int) -> None:
        self._dataset = dataset
        total = len(dataset)
        self.places = np.linspace(0, total - 1, min(total, most)).round().astype(int).tolist() if total else []

    def __len__(self) -> int:
        return len(self.places)

    def some(self, most: int) -> "Images":
        """At most so many of them, evenly spaced."""
        chosen = Images(self.places, most)
        chosen._dataset, chosen.places = self._dataset, [self.places[place] for place in chosen.places]
        return chosen

    @property
    def num_batches(self) -> int:
        """Batches of :data:`BATCH_SIZE`."""
        return -(-len(self) // BATCH_SIZE)

    def batch(self, number: int) -> dict[str, Tensor]:
        """One batch, the same whatever the number of processes."""
        places = self.places[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]
        if hasattr(self._dataset, "__getitems__"):
            batch: dict[str, Tensor] = self._dataset.__getitems__(places)
            return batch
        return default_collate([self._dataset[place] for place in places])

    def mine(self) -> range:
        """The numbers of this process's batches."""
        return range(rank(), self.num_batches, world_size())


class Material:
    """What signals are measured on: a network, training and held-out images. Features are computed once.

    Args:
        module: Has ``features``, (B, C, H, W) uint8 to (B, D).
        train, held_out: The images.
        num_classes: Number of classes; 0 without labels.
        seed: Of the masks.
        precision: What the network computes within, such as the trainer's ``precision_plugin.val_step_context``.
    """

    def __init__(
        self,
        module: nn.Module,
        train: Images,
        held_out: Images,
        num_classes: int,
        seed: int,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.module: Any = module  # its device is an attribute that nn.Module does not have
        self.train, self.held_out = train, held_out
        self.num_classes, self.seed, self.precision = num_classes, seed, precision

    @cached_property
    def train_features(self) -> tuple[Tensor, Tensor]:
        """(N, D) float32 and labels (N,) int64, on the CPU."""
        return self._features(self.train)

    @cached_property
    def held_out_features(self) -> tuple[Tensor, Tensor]:
        """(M, D) float32 and labels (M,) int64, on the CPU."""
        return self._features(self.held_out)

    @cached_property
    def held_out_loss(self) -> Value:
        """The masked-modelling loss on held-out images, and its standard error."""
        return self.loss(self.held_out)

    def loss(self, images: Images) -> Value:
        """The masked-modelling loss with fixed masks, and its standard error over several draws of them; or NaN."""
        module, objective = self.module, getattr(self.module, "objective", None)
        wanted = getattr(objective, "held_out_loss", None)
        if wanted is None:
            return float("nan"), float("nan")
        losses = torch.zeros(NUM_MASKS, images.num_batches, dtype=torch.float64)
        for number in images.mine():
            seen = module.views(images.batch(number)["image"].to(module.device))
            for draw in range(NUM_MASKS):
                generator = generator_for(self.seed, "signal masks", draw, number)
                with alone(), self.precision():
                    losses[draw, number] = float(objective(seen, generator)[wanted])  # type: ignore[misc]
        losses = losses.to(module.device if module.device.type != "mps" else "cpu")
        sum_over_processes(losses)
        sizes = losses.new_tensor(
            [len(images.places[n * BATCH_SIZE :][:BATCH_SIZE]) for n in range(images.num_batches)]
        )
        means = losses @ (sizes / sizes.sum())
        return float(means.mean()), float(means.std() / NUM_MASKS**0.5)

    def _features(self, images: Images) -> tuple[Tensor, Tensor]:
        """Each process computes some of the batches; together they have all, each once."""
        features: Tensor | None = None
        labels = torch.zeros(len(images), dtype=torch.int64, device=self.module.device)
        for number in images.mine() or range(min(1, images.num_batches)):  # all must know the width
            batch = images.batch(number)
            with alone(), self.precision():
                found = self.module.features(batch["image"].to(self.module.device)).float()
            if features is None:
                features = found.new_zeros(len(images), found.shape[1])
            if number in images.mine():
                rows = slice(number * BATCH_SIZE, number * BATCH_SIZE + len(found))
                features[rows] = found
                if "label" in batch:
                    labels[rows] = batch["label"].to(labels.device)
        if features is None:
            raise UserError("There are no images to measure features on.")
        sum_over_processes(features)
        sum_over_processes(labels)
        return features.cpu(), labels.cpu()


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluates without gradient; modes and all random states are afterwards what they were."""
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
