"""Signals of how good a network in training is, measured without disturbing it."""

import copy
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import default_collate

from lit_splitmask.distributed import alone, broadcast_from_zero, rank, sum_over_processes, world_size
from lit_splitmask.errors import UserError
from lit_splitmask.probing import LinearProbe, accuracy, knn_predict, rankme, rankme_error
from lit_splitmask.seeding import generator_for

BATCH_SIZE = 128
NUM_MASKS = 4
"""Draws of masks over which the held-out loss is repeated, to know its noise."""

LINEAR_COST = 70 * 2 * 30
"""Of a linear probe for each image, width and class: 70 evaluations of the loss and its gradient, as measured, at a thirtieth of
the speed of the backbone."""

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
        module: LightningModule,
        train: Images,
        held_out: Images,
        num_classes: int,
        seed: int,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.module, self.train, self.held_out = module, train, held_out
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
        module: Any = self.module
        objective = cast(Any, getattr(module, "objective", None))
        wanted = getattr(objective, "held_out_loss", None)
        if wanted is None:
            return float("nan"), float("nan")
        losses = torch.zeros(NUM_MASKS, images.num_batches, dtype=torch.float64)
        for number in images.mine():
            seen = module.views(images.batch(number)["image"].to(module.device))
            for draw in range(NUM_MASKS):
                generator = generator_for(self.seed, "signal masks", draw, number)
                with alone(), self.precision():
                    losses[draw, number] = float(objective(seen, generator)[wanted])
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
                found = cast(Any, self.module).features(batch["image"].to(self.module.device)).float()
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


@dataclass(frozen=True)
class Sizes:
    """What a measurement's cost depends on.

    Attributes:
        num_train, num_held_out: Images.
        num_classes: 0 without labels.
        width: Of the features.
        macs: Multiply-adds of an image's way through the backbone; 0 if unknown.
    """

    num_train: int
    num_held_out: int
    num_classes: int
    width: int
    macs: int


class Signal(ABC):
    """Something to be measured during training.

    Attributes:
        name: In logs and rules.
        needs_labels: Whether it can be measured with labels only.
        needs_features: Of which images.
    """

    name: str
    needs_labels = False
    needs_features: tuple[Literal["train", "held_out"], ...] = ()

    def forward_passes(self, sizes: Sizes) -> float:
        """About how many images' ways through the backbone it costs, beside those for the features."""
        return 0.0

    @abstractmethod
    def measure(self, material: Material) -> Value:
        """The value and its standard error, the same on every process."""


class HeldOutLoss(Signal):
    """The pre-training loss on held-out images: fixed masks and words, its masked-modelling part only.

    It is measured for objectives whose ``held_out_loss`` names a loss that means something there, and NaN for others. Its
    standard error is that over several draws of masks.
    """

    name = "held_out_loss"

    def forward_passes(self, sizes: Sizes) -> float:
        return NUM_MASKS * sizes.num_held_out

    def measure(self, material: Material) -> Value:
        return material.held_out_loss


class LossGap(Signal):
    """The held-out loss minus that on as many training images, neither augmented: how much the network knows by heart."""

    name = "loss_gap"

    def forward_passes(self, sizes: Sizes) -> float:
        return NUM_MASKS * (sizes.num_held_out + min(sizes.num_train, sizes.num_held_out))

    def measure(self, material: Material) -> Value:
        (held_out, error), (train, train_error) = (
            material.held_out_loss,
            material.loss(material.train.some(len(material.held_out))),
        )
        return held_out - train, math.hypot(error, train_error)


class RankMe(Signal):
    """The effective rank of the held-out images' features."""

    name = "rankme"
    needs_features = ("held_out",)

    def measure(self, material: Material) -> Value:
        features = material.held_out_features[0]
        return rankme(features), rankme_error(features)


class KNN(Signal):
    """The accuracy of k nearest neighbours on held-out images.

    Args:
        k: Neighbours that vote.
    """

    name, needs_labels = "knn", True
    needs_features = ("train", "held_out")

    def __init__(self, k: int = 20) -> None:
        self.k = k

    def measure(self, material: Material) -> Value:
        (train, labels), (held_out, truth) = material.train_features, material.held_out_features
        predicted = torch.zeros_like(truth, device=material.module.device)
        mine = slice(rank(), None, world_size())
        predicted[mine] = knn_predict(train, labels, held_out[mine], material.num_classes, k=self.k).to(
            predicted.device
        )
        sum_over_processes(predicted)
        return accuracy(predicted.cpu(), truth)


class Linear(Signal):
    """The accuracy of a linear classifier on held-out images."""

    name, needs_labels = "linear", True
    needs_features = ("train", "held_out")

    def forward_passes(self, sizes: Sizes) -> float:
        return LINEAR_COST * sizes.num_train * sizes.width * sizes.num_classes / max(1, sizes.macs)

    def measure(self, material: Material) -> Value:
        (train, labels), (held_out, truth) = material.train_features, material.held_out_features
        return accuracy(LinearProbe(train, labels, material.num_classes).predict(held_out), truth)


class ShortFinetune(Signal):
    """The accuracy on held-out images of a copy of the network that is fine-tuned for some steps.

    Args:
        steps: Of AdamW, with a batch of ``batch_size`` and a learning rate that falls to zero in a line.
        batch_size: Images a step.
        lr: Peak learning rate.
    """

    name, needs_labels = "finetune", True
    needs_features = ("held_out",)

    def __init__(self, steps: int = 100, batch_size: int = 32, lr: float = 1e-3) -> None:
        self.steps, self.batch_size, self.lr = steps, batch_size, lr

    def forward_passes(self, sizes: Sizes) -> float:
        return 3 * self.steps * self.batch_size + sizes.num_held_out

    def measure(self, material: Material) -> Value:
        module: Any = material.module
        vit: Any = copy.deepcopy(module.vit).requires_grad_(True)  # a teacher's weights have no gradient
        vit.pos_embed.requires_grad_(vit.config.positions == "learned")
        head = nn.Linear(material.held_out_features[0].shape[1], material.num_classes, device=module.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)

        def logits(images: Tensor) -> Tensor:
            return head(vit.features(module.normalise(images.to(module.device))).mean(dim=1))

        train = [material.train.batch(number) for number in range(material.train.num_batches)]
        images = torch.cat([batch["image"] for batch in train])
        labels = torch.cat([batch["label"] for batch in train]).to(module.device)
        generator = torch.Generator().manual_seed(material.seed)
        optimizer = torch.optim.AdamW([*vit.parameters(), *head.parameters()], lr=self.lr, weight_decay=0.05)
        with torch.enable_grad():
            for step in range(self.steps):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * (1 - step / self.steps)
                chosen = torch.randint(len(images), (self.batch_size,), generator=generator)
                with material.precision():
                    loss = F.cross_entropy(logits(images[chosen]), labels[chosen.to(labels.device)])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        batches = [material.held_out.batch(number) for number in range(material.held_out.num_batches)]
        predicted = torch.cat([logits(batch["image"]).argmax(dim=1).cpu() for batch in batches])
        value, error = accuracy(predicted, torch.cat([batch["label"] for batch in batches]))
        found = torch.tensor([value, error], device=module.device, dtype=torch.float32)
        broadcast_from_zero(found)  # processes may round otherwise
        return float(found[0]), float(found[1])


SIGNALS: dict[str, type[Signal]] = {
    signal.name: signal for signal in (HeldOutLoss, LossGap, RankMe, KNN, Linear, ShortFinetune)
}


@dataclass(frozen=True)
class Measured:
    """What some signals gave, by their names.

    Attributes:
        values, errors: The signals and their standard errors.
        seconds: What each took; what several need is counted for the first of them.
    """

    values: dict[str, float]
    errors: dict[str, float]
    seconds: dict[str, float]


def forward_passes(signals: Sequence[Signal], sizes: Sizes) -> float:
    """About how many images' ways through the backbone :func:`measure` costs."""
    used = [signal for signal in signals if sizes.num_classes >= 2 or not signal.needs_labels]
    needed = {part for signal in used for part in signal.needs_features}
    features = sizes.num_train * ("train" in needed) + sizes.num_held_out * ("held_out" in needed)
    return max(1.0, features + sum(signal.forward_passes(sizes) for signal in used))


def measure(signals: Sequence[Signal], material: Material) -> Measured:
    """Measures the signals; those that need labels are left out where there are none."""
    found = Measured({}, {}, {})
    for signal in signals:
        if signal.needs_labels and material.num_classes < 2:
            continue
        started = time.perf_counter()
        found.values[signal.name], found.errors[signal.name] = signal.measure(material)
        found.seconds[signal.name] = time.perf_counter() - started
    return found


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
