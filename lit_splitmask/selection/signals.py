"""Signals of how good a network in training is."""

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.distributed import broadcast_from_zero, rank, sum_over_processes, world_size
from lit_splitmask.probing import LinearProbe, accuracy, knn_predict, rankme, rankme_error
from lit_splitmask.selection.material import NUM_MASKS, Material, Value
from lit_splitmask.selection.rule import Direction

LINEAR_COST = 70 * 2 * 30
"""Of a linear probe for each image, width and class: 70 evaluations of the loss and its gradient, as measured, at a thirtieth of
the speed of the backbone."""


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
    """Something that is measured during training.

    Attributes:
        name: In logs and rules.
        better: Whether a larger value (``max``) or a smaller one (``min``) is better; every signal must say.
        needs_labels: Whether it can be measured with labels only.
        needs_features: Of which images.
    """

    name: str
    better: Direction
    needs_labels = False
    needs_features: tuple[Literal["train", "held_out"], ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Checks that a signal has a name and says which direction is better.

        Raises:
            TypeError: It does not.
        """
        super().__init_subclass__(**kwargs)
        missing = [name for name in ("name", "better") if not hasattr(cls, name)]
        if missing or cls.better not in get_args(Direction):
            raise TypeError(
                f"The signal {cls.__name__} must set the class attributes name, and better to 'max' or 'min': without the "
                "direction, the worst checkpoint could be kept."
            )

    def forward_passes(self, sizes: Sizes) -> float:
        """About how many forward passes of single images it costs, beside those for the features."""
        return 0.0

    @abstractmethod
    def measure(self, material: Material) -> Value:
        """The value and its standard error, the same on every process."""


class HeldOutLoss(Signal):
    """The pre-training loss on held-out images: fixed masks and words, its masked-modelling part only.

    It is measured for objectives whose ``held_out_loss`` names a loss that means something there, and NaN for others. Its
    standard error is that over several draws of masks.
    """

    name, better = "held_out_loss", "min"

    def forward_passes(self, sizes: Sizes) -> float:
        return NUM_MASKS * sizes.num_held_out

    def measure(self, material: Material) -> Value:
        return material.held_out_loss


class LossGap(Signal):
    """The held-out loss minus that on as many training images, neither augmented: how much the network knows by heart."""

    name, better = "loss_gap", "min"

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

    name, better = "rankme", "max"
    needs_features = ("held_out",)

    def measure(self, material: Material) -> Value:
        features = material.held_out_features[0]
        return rankme(features), rankme_error(features)


class KNN(Signal):
    """The accuracy of k nearest neighbours on held-out images.

    Args:
        k: Neighbours that vote.
    """

    name, better, needs_labels = "knn", "max", True
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

    name, better, needs_labels = "linear", "max", True
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

    name, better, needs_labels = "finetune", "max", True

    def __init__(self, steps: int = 100, batch_size: int = 32, lr: float = 1e-3) -> None:
        self.steps, self.batch_size, self.lr = steps, batch_size, lr

    def forward_passes(self, sizes: Sizes) -> float:
        return 3 * self.steps * self.batch_size + sizes.num_held_out

    def measure(self, material: Material) -> Value:
        module: Any = material.module
        vit: Any = copy.deepcopy(module.vit).requires_grad_(True)  # a teacher's weights have no gradient
        vit.pos_embed.requires_grad_(vit.config.positions == "learned")
        head = nn.Linear(vit.embed_dim, material.num_classes, device=module.device)
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
