"""Which checkpoint to keep, whether to go on, and why: pure functions of the history of some signals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["max", "min"]

DIRECTIONS: dict[str, Direction] = {
    "held_out_loss": "min",
    "rankme": "max",
    "knn": "max",
    "linear": "max",
    "finetune": "max",
}
"""Whether more or less of a signal is better."""


LEAST_READINGS = 3
"""After the best, before training is stopped."""


@dataclass(frozen=True)
class Reading:
    """Signals at one step.

    Attributes:
        step: Optimizer steps done.
        values: By signal; NaN or missing where it could not be measured.
        errors: Standard errors by signal; missing where they are unknown.
    """

    step: int
    values: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """How signals decide.

    The default order is that of ``docs/overfitting.md``: a linear probe where there are labels, RankMe where there are none. The
    held-out loss comes last: it was found to rise long before fine-tuning suffers.

    Args:
        signals: In order of preference; the first that could be measured decides alone.
        margin: Standard errors that an improvement must exceed; of the difference, where both are known.
        patience: Share of the budget without an improvement after which training stops, if at least three readings say so and
            the last is no better than the best, not even within the noise.
    """

    signals: Sequence[str] = ("linear", "rankme", "held_out_loss")
    margin: float = 1.0
    patience: float = 0.25


@dataclass(frozen=True)
class Decision:
    """What a rule says of a history.

    Attributes:
        best_step: The step to keep; None while nothing was measured.
        stop: Whether to stop training.
        reason: In words.
        signal: That decided; None where none was measured.
        overfits_from: The first step from which on the signal stayed worse than at its best, beyond the noise; None if none did.
    """

    best_step: int | None
    stop: bool
    reason: str
    signal: str | None = None
    overfits_from: int | None = None


def decide(history: Sequence[Reading], *, total_steps: int, warmup_steps: int = 0, rule: Rule = Rule()) -> Decision:
    """Walks through the readings: a later one becomes the best only by an improvement beyond the noise.

    So the earlier of two equals is kept, and the best is always the reading at which it was found: the decision after a resume is
    the same, and the checkpoint can be saved at once.

    Args:
        history: By rising step.
        total_steps: Of the whole budget.
        warmup_steps: Before which training never stops.
        rule: How the signals decide.
    """
    signal = deciding_signal(history, rule.signals)
    if signal is None:
        latest = history[-1].step if history else None
        return Decision(latest, False, f"none of {', '.join(rule.signals)} could be measured: the latest is kept")
    readings = [reading for reading in history if math.isfinite(reading.values.get(signal, math.nan))]
    best = readings[0]
    for reading in readings[1:]:
        if _gain(signal, best, reading) > rule.margin * _noise(signal, best, reading):
            best = reading
    overfits_from = _overfits_from(signal, best, readings, rule.margin)
    last = history[-1].step
    since = [reading for reading in readings if reading.step > best.step]
    waited = last - max(best.step, warmup_steps) >= rule.patience * total_steps
    stop = waited and len(since) >= LEAST_READINGS and _gain(signal, best, readings[-1]) <= 0
    return Decision(best.step, stop, _words(signal, best, readings, overfits_from), signal, overfits_from)


def deciding_signal(history: Sequence[Reading], signals: Sequence[str]) -> str | None:
    """The first of the signals that the first reading with any of them has: it stays the same for the rest of a run."""
    for reading in history:
        for name in signals:
            if math.isfinite(reading.values.get(name, math.nan)):
                return name
    return None


def _gain(signal: str, before: Reading, after: Reading) -> float:
    """How much better the later reading is."""
    difference = after.values[signal] - before.values[signal]
    return difference if DIRECTIONS.get(signal, "max") == "max" else -difference


def _noise(signal: str, before: Reading, after: Reading) -> float:
    """The larger standard error of the two.

    Both are measured on the same images with the same masks, so that most of their noise is shared: adding the errors would
    overstate that of the difference.
    """
    errors = [reading.errors.get(signal, 0.0) for reading in (before, after)]
    return max((error for error in errors if math.isfinite(error)), default=0.0)


def _overfits_from(signal: str, best: Reading, readings: Sequence[Reading], margin: float) -> int | None:
    start = None
    for reading in reversed(readings):
        worse = -_gain(signal, best, reading) > max(margin, 2.0) * _noise(signal, best, reading)
        if reading.step <= best.step or not worse:
            break
        start = reading.step
    return start


def _words(signal: str, best: Reading, readings: Sequence[Reading], overfits_from: int | None) -> str:
    extreme = "lowest" if DIRECTIONS.get(signal, "max") == "min" else "highest"
    value, last = best.values[signal], readings[-1]
    said = f"{signal} {extreme} within its noise ({value:.4g} at step {best.step:,})"
    if overfits_from is not None:
        return (
            f"{said}; it got worse from step {overfits_from:,} on, to {last.values[signal]:.4g} at step {last.step:,}"
        )
    if last.step == best.step:
        return f"{said}; it was still improving"
    return f"{said}; later checkpoints are no better"
