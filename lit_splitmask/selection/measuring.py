"""Measures the signals of a run, and estimates what that costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from lit_splitmask.errors import UserError
from lit_splitmask.selection.signals import Signal
from lit_splitmask.selection.sizes import Sizes
from lit_splitmask.selection.snapshot import Snapshot

FORWARD_SHARE = 1 / 2
"""Share of a training step that a forward pass of all patches through the backbone would take: a third for methods that see all
patches, more for those that hide most of them."""


@dataclass(frozen=True)
class Measurements:
    """What was measured at one step, by the names of the signals.

    Attributes:
        values: Values.
        errors: Standard errors.
        seconds: Time that each took; what several signals share is counted for the first of them.
    """

    values: dict[str, float]
    errors: dict[str, float]
    seconds: dict[str, float]


def check_names(measured: Sequence[str], deciding: Sequence[str]) -> None:
    """Checks the names of signals.

    Args:
        measured: Names of the signals that are measured.
        deciding: Names of the signals that decide.

    Raises:
        UserError: Two measured signals have the same name, or a signal that decides is not measured.
    """
    if len(set(measured)) < len(measured):
        raise UserError(f"Two signals have the same name, of {', '.join(measured)}: give each its own name.")
    unknown = [name for name in deciding if name not in measured]
    if unknown:
        raise UserError(
            f"The rule decides by {', '.join(unknown)}, which is not measured. Measured are {', '.join(measured)}: add it "
            "to signals, or leave it out of the rule."
        )


def forward_passes(signals: Sequence[Signal], sizes: Sizes) -> float:
    """About how many forward passes of single images :func:`measure` costs; at least 1."""
    used = [signal for signal in signals if sizes.num_classes >= 2 or not signal.needs_labels]
    needed = {part for signal in used for part in signal.needs_features}
    features = sizes.num_train * ("train" in needed) + sizes.num_held_out * ("held_out" in needed)
    return max(1.0, features + sum(signal.forward_passes(sizes) for signal in used))


def affordable_evaluations(
    signals: Sequence[Signal], sizes: Sizes, *, steps: int, images_per_step: int, most_cost: float
) -> float:
    """How many evaluations fit into a share of the training time.

    Args:
        signals: Signals that each evaluation measures.
        sizes: What their cost depends on.
        steps: Optimizer steps of the whole training.
        images_per_step: Images per optimizer step.
        most_cost: Share of the training time that all evaluations may take.
    """
    affordable_passes = most_cost * steps * images_per_step / FORWARD_SHARE
    return affordable_passes / forward_passes(signals, sizes)


def measure(signals: Sequence[Signal], snapshot: Snapshot) -> Measurements:
    """Measures the signals; without labels, those that need them are left out."""
    found = Measurements({}, {}, {})
    for signal in signals:
        if signal.needs_labels and snapshot.num_classes < 2:
            continue
        started = time.perf_counter()
        found.values[signal.name], found.errors[signal.name] = signal.measure(snapshot)
        found.seconds[signal.name] = time.perf_counter() - started
    return found
