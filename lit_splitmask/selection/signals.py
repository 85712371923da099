"""Signals of how good a network in training is."""

import copy
import math
from abc import ABC, abstractmethod
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.distributed import broadcast_from_zero, rank, sum_over_processes, world_size
from lit_splitmask.models.vit import ViT
from lit_splitmask.probing import LinearProbe, accuracy, knn_predict, rankme, rankme_error
from lit_splitmask.selection.rule import Direction
from lit_splitmask.selection.sizes import Sizes
from lit_splitmask.selection.snapshot import NUM_MASK_DRAWS, Snapshot, ValueAndError

Part = Literal["train", "held_out"]
"""The images of a snapshot whose features a signal may need."""

LINEAR_COST = 70 * 2 * 30
"""Cost of a linear probe per image, width and class, in multiply-adds of the backbone: 70 evaluations of the loss and its
gradient, as measured, at a thirtieth of the backbone's speed."""


class Signal(ABC):
    """A measure of how good the network is, taken during training.

    A subclass declares what it is by class attributes, and what it costs by ``needs_features``, by :meth:`forward_passes` or by
    both. Wrong or missing declarations are errors when the class is defined.

    Attributes:
        name: Name in logs and rules.
        better: Whether a larger value (``max``) or a smaller one (``min``) is better.
        needs_labels: Whether it can be measured only with labels.
        needs_features: The images whose features it uses: a tuple of ``train`` and ``held_out``.
    """

    name: str
    better: Direction
    needs_labels: bool = False
    needs_features: tuple[Part, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Checks the declarations.

        Raises:
            TypeError: ``name`` is missing or empty; ``better`` is missing, or neither ``max`` nor ``min``; ``needs_labels`` is
                not a bool; ``needs_features`` is not a tuple of ``train`` and ``held_out``; or there is neither
                ``needs_features`` nor a ``forward_passes``.
        """
        super().__init_subclass__(**kwargs)
        if problem := _wrong_declaration(cls):
            raise TypeError(f"The signal {cls.__name__} must {problem}")

    def forward_passes(self, sizes: Sizes) -> float:
        """About how many forward passes of single images it costs, in addition to those for ``needs_features``."""
        return 0.0

    def lacks(self, module: nn.Module) -> str | None:
        """What a module must have to be measured and does not have, in words; None if it can be measured."""
        if self.needs_features and not callable(getattr(module, "features", None)):
            return "a method features(images)"
        return None

    @abstractmethod
    def measure(self, snapshot: Snapshot) -> ValueAndError:
        """The value and its standard error, the same on every process."""


def _wrong_declaration(signal: type[Signal]) -> str | None:
    """What a class of signals must do that it does not do; None if it is complete."""
    name, better = getattr(signal, "name", None), getattr(signal, "better", None)
    if not isinstance(name, str) or not name:
        return f"set the class attribute name to the name in logs and rules, not to {name!r}."
    if better not in get_args(Direction):
        return (
            f"set better to 'max' or 'min', not to {better!r}: with the wrong direction, the worst checkpoint is kept."
        )
    if not isinstance(signal.needs_labels, bool):
        return f"set needs_labels to True or False, not to {signal.needs_labels!r}."
    parts: Any = signal.needs_features  # a string is a sequence of letters, so the type is checked first
    if not isinstance(parts, tuple) or not set(parts) <= set(get_args(Part)):
        return f"set needs_features to a tuple of 'train' and 'held_out', not to {parts!r}."
    if not parts and signal.forward_passes is Signal.forward_passes:
        return (
            "set needs_features or define forward_passes: its cost decides how often signals are measured. If it costs "
            "nothing, return 0.0."
        )
    return None


def _lacks_loss(module: nn.Module) -> str | None:
    # An objective whose held_out_loss is None counts although its loss is NaN, so that the number of evaluations of this
    # project's runs stays as it was.
    has_loss = hasattr(getattr(module, "objective", None), "held_out_loss") and callable(getattr(module, "views", None))
    return None if has_loss else "an objective with a held_out_loss, as Pretrain has"


class HeldOutLoss(Signal):
    """The pre-training loss on held-out images with fixed masks and words, its masked-modelling part only.

    It is NaN for objectives whose ``held_out_loss`` is None, and left out for modules that have no such objective. Its standard
    error is that over several draws of masks.

    Example:
        >>> HeldOutLoss().name, HeldOutLoss.better
        ('held_out_loss', 'min')
    """

    name, better = "held_out_loss", "min"

    def forward_passes(self, sizes: Sizes) -> float:
        return NUM_MASK_DRAWS * sizes.num_held_out

    def lacks(self, module: nn.Module) -> str | None:
        return _lacks_loss(module)

    def measure(self, snapshot: Snapshot) -> ValueAndError:
        return snapshot.held_out_loss


class LossGap(Signal):
    """The held-out loss minus the loss on as many training images, neither augmented: how much the network has memorised.

    Example:
        >>> LossGap().name, LossGap.better
        ('loss_gap', 'min')
    """

    name, better = "loss_gap", "min"

    def forward_passes(self, sizes: Sizes) -> float:
        return NUM_MASK_DRAWS * (sizes.num_held_out + min(sizes.num_train, sizes.num_held_out))

    def lacks(self, module: nn.Module) -> str | None:
        return _lacks_loss(module)

    def measure(self, snapshot: Snapshot) -> ValueAndError:
        held_out, error = snapshot.held_out_loss
        train, train_error = snapshot.loss(snapshot.train.thinned(len(snapshot.held_out)))
        return held_out - train, math.hypot(error, train_error)


class RankMe(Signal):
    """The effective rank of the held-out images' features.

    Example:
        >>> RankMe().name, RankMe.better, RankMe.needs_labels
        ('rankme', 'max', False)
    """

    name, better = "rankme", "max"
    needs_features = ("held_out",)

    def measure(self, snapshot: Snapshot) -> ValueAndError:
        features = snapshot.held_out_features[0]
        return rankme(features), rankme_error(features)


class KNN(Signal):
    """The accuracy of k nearest neighbours on held-out images.

    Args:
        k: Neighbours that vote.

    Example:
        >>> signal = KNN(k=5)
        >>> signal.k, signal.needs_labels
        (5, True)
    """

    name, better, needs_labels = "knn", "max", True
    needs_features = ("train", "held_out")

    def __init__(self, k: int = 20) -> None:
        self.k = k

    def measure(self, snapshot: Snapshot) -> ValueAndError:
        (train, train_labels), (held_out, labels) = snapshot.train_features, snapshot.held_out_features
        predicted = torch.zeros_like(labels, device=snapshot.module.device)
        own = slice(rank(), None, world_size())
        found = knn_predict(train, train_labels, held_out[own], snapshot.num_classes, k=self.k)
        predicted[own] = found.to(predicted.device)
        sum_over_processes(predicted)
        return accuracy(predicted.cpu(), labels)


class Linear(Signal):
    """The accuracy of a linear classifier on held-out images.

    Example:
        >>> Linear().name, Linear.needs_features
        ('linear', ('train', 'held_out'))
    """

    name, better, needs_labels = "linear", "max", True
    needs_features = ("train", "held_out")

    def forward_passes(self, sizes: Sizes) -> float:
        return LINEAR_COST * sizes.num_train * sizes.width * sizes.num_classes / max(1, sizes.macs)

    def measure(self, snapshot: Snapshot) -> ValueAndError:
        (train, train_labels), (held_out, labels) = snapshot.train_features, snapshot.held_out_features
        return accuracy(LinearProbe(train, train_labels, snapshot.num_classes).predict(held_out), labels)


class ShortFinetune(Signal):
    """The accuracy on held-out images of a copy of the network after a few steps of fine-tuning with AdamW.

    Args:
        steps: Number of steps.
        batch_size: Images per step.
        lr: Initial learning rate; it falls linearly to zero.

    Example:
        >>> signal = ShortFinetune(steps=50)
        >>> signal.name, signal.steps, signal.batch_size
        ('finetune', 50, 32)
    """

    name, better, needs_labels = "finetune", "max", True

    def __init__(self, steps: int = 100, batch_size: int = 32, lr: float = 1e-3) -> None:
        self.steps, self.batch_size, self.lr = steps, batch_size, lr

    def forward_passes(self, sizes: Sizes) -> float:
        return 3 * self.steps * self.batch_size + sizes.num_held_out

    def lacks(self, module: nn.Module) -> str | None:
        is_known = isinstance(getattr(module, "vit", None), ViT) and callable(getattr(module, "normalise", None))
        return None if is_known else "a ViT of this project as vit, and normalise(images)"

    def measure(self, snapshot: Snapshot) -> ValueAndError:
        module: Any = snapshot.module
        vit: Any = copy.deepcopy(module.vit).requires_grad_(True)  # a teacher's weights are frozen
        vit.pos_embed.requires_grad_(vit.config.positions == "learned")
        head = nn.Linear(vit.embed_dim, snapshot.num_classes, device=module.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)

        def logits(images: Tensor) -> Tensor:
            return head(vit.features(module.normalise(images.to(module.device))).mean(dim=1))

        train = [snapshot.train.batch(number) for number in range(snapshot.train.num_batches)]
        images = torch.cat([batch["image"] for batch in train])
        labels = torch.cat([batch["label"] for batch in train]).to(module.device)
        generator = torch.Generator().manual_seed(snapshot.seed)
        optimizer = torch.optim.AdamW([*vit.parameters(), *head.parameters()], lr=self.lr, weight_decay=0.05)
        with torch.enable_grad():
            for step in range(self.steps):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * (1 - step / self.steps)
                chosen = torch.randint(len(images), (self.batch_size,), generator=generator)
                with snapshot.precision():
                    loss = F.cross_entropy(logits(images[chosen]), labels[chosen.to(labels.device)])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        batches = [snapshot.held_out.batch(number) for number in range(snapshot.held_out.num_batches)]
        predicted = torch.cat([logits(batch["image"]).argmax(dim=1).cpu() for batch in batches])
        result = accuracy(predicted, torch.cat([batch["label"] for batch in batches]))
        agreed = torch.tensor(result, device=module.device, dtype=torch.float32)
        broadcast_from_zero(agreed)  # each process trained its own copy, and rounding may differ
        return float(agreed[0]), float(agreed[1])
