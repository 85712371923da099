"""The rule: from the history of signals to the checkpoint to keep, whether to stop, and why. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lit_splitmask.files import without_nan

Direction = Literal["max", "min"]
"""Whether a larger or a smaller value of a signal is better."""

MIN_READINGS_AFTER_BEST = 3
"""Readings without an improvement that must follow the best one before training stops."""

OVERFITTING_ERRORS = 2.0
"""Standard errors by which a signal must be worse than at its best, at least, to count as overfitting."""


@dataclass(frozen=True)
class Reading:
    """The signals at one step.

    Attributes:
        step: Optimizer steps done.
        values: Value of each signal by name; NaN or missing if it could not be measured.
        errors: Standard error of each signal by name; NaN or missing if it is unknown.
    """

    step: int
    values: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values, with None in place of numbers that are not finite."""
        return {"step": self.step, "values": without_nan(dict(self.values)), "errors": without_nan(dict(self.errors))}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Reading":
        """The reading that :meth:`as_json` stored, with NaN in place of None."""

        def numbers(values: Mapping[str, float | None]) -> dict[str, float]:
            return {name: math.nan if value is None else value for name, value in values.items()}

        return cls(stored["step"], numbers(stored["values"]), numbers(stored["errors"]))


@dataclass(frozen=True)
class Rule:
    """How signals decide.

    The default order comes from ``docs/overfitting.md``: RankMe followed fine-tuned accuracy closest, with and without labels,
    also where the linear probe fell while the accuracy rose. The held-out loss comes last: it rose long before fine-tuning
    suffered. The default window and margin lose the least on the synthetic curves there.

    Args:
        signals: Names in order of preference; the first one that could be measured decides alone.
        window: Number of readings whose mean stands for the signal: the one judged and those just before it.
        margin: Standard errors of that mean that an improvement must exceed.
        patience: Fraction of the budget without an improvement after which training stops, provided that at least three readings
            followed the best one and that the last is no better than the best, not even within the noise.
    """

    signals: Sequence[str] = ("rankme", "linear", "held_out_loss")
    window: int = 2
    margin: float = 0.25
    patience: float = 0.25


@dataclass(frozen=True)
class Decision:
    """What a rule decides from a history.

    Attributes:
        best_step: Step of the checkpoint to keep; None if nothing was measured yet.
        stop: Whether to stop training.
        reason: Why, in one clause.
        signal: Name of the signal that decided; None if none could be measured.
        overfits_from: First step from which the signal stayed worse than at its best, beyond the noise; None if it did not.
    """

    best_step: int | None
    stop: bool
    reason: str
    signal: str | None = None
    overfits_from: int | None = None


def decide(
    history: Sequence[Reading],
    *,
    directions: Mapping[str, Direction],
    total_steps: int,
    warmup_steps: int = 0,
    rule: Rule = Rule(),
) -> Decision:
    """Goes through the readings in order; a later one becomes the best only if it improves beyond the noise.

    So the earlier of two equal readings is kept, and each best is found at its own step: its checkpoint can be saved
    immediately, and a resumed run decides as an uninterrupted one.

    Args:
        history: Readings by increasing step.
        directions: Direction of every signal of the rule: the signal's own ``better``.
        total_steps: Steps of the whole budget.
        warmup_steps: Steps of the warm-up, during which training never stops.
        rule: How the signals decide.
    """
    signal = deciding_signal(history, rule.signals)
    if signal is None:
        latest = history[-1].step if history else None
        names = ", ".join(rule.signals)
        return Decision(latest, False, f"none of {names} could be measured, so the latest checkpoint is kept")
    points = _smooth(history, signal, rule.window, directions[signal])
    best = points[0]
    for point in points[1:]:
        if point.better_than(best) > rule.margin * max(point.error, best.error):
            best = point
    overfits_from = _overfits_from(best, points, rule.margin)
    if len(points) == 1:
        reason = f"{signal} was measured only once ({best.value:.4g}), so there was no choice"
        return Decision(best.step, False, reason, signal)
    num_since = sum(point.step > best.step for point in points)
    has_waited = history[-1].step - max(best.step, warmup_steps) >= rule.patience * total_steps
    stop = has_waited and num_since >= MIN_READINGS_AFTER_BEST and points[-1].better_than(best) <= 0
    reason = _reason(signal, directions[signal], best, points[-1], overfits_from)
    return Decision(best.step, stop, reason, signal, overfits_from)


def deciding_signal(history: Sequence[Reading], signals: Sequence[str]) -> str | None:
    """The preferred one of the signals in the first reading that has any of them; it decides for the rest of the run."""
    for reading in history:
        for name in signals:
            if math.isfinite(reading.values.get(name, math.nan)):
                return name
    return None


@dataclass(frozen=True)
class _Point:
    """A signal at one step, smoothed, with its sign turned so that more is better.

    Two readings use the same images and masks, so they share most of their noise: the larger of their errors is taken as the
    error of their difference.
    """

    step: int
    score: float
    error: float
    value: float

    def better_than(self, other: "_Point") -> float:
        return self.score - other.score


def _smooth(history: Sequence[Reading], signal: str, window: int, direction: Direction) -> list[_Point]:
    """Means over each reading and those before it; readings without a value are skipped."""
    sign = 1 if direction == "max" else -1
    readings = [reading for reading in history if math.isfinite(reading.values.get(signal, math.nan))]
    points = []
    for end, reading in enumerate(readings, start=1):
        recent = readings[max(0, end - window) : end]
        score = sign * sum(other.values[signal] for other in recent) / len(recent)
        errors = [other.errors.get(signal, 0.0) for other in recent]
        known = [error for error in errors if math.isfinite(error)]
        error = math.sqrt(sum(value**2 for value in known)) / len(recent)
        points.append(_Point(reading.step, score, error, reading.values[signal]))
    return points


def _overfits_from(best: _Point, points: Sequence[_Point], margin: float) -> int | None:
    start = None
    for point in reversed(points):
        noise = max(margin, OVERFITTING_ERRORS) * max(point.error, best.error)
        if not best.better_than(point) > noise:  # at the latest, the best itself is not
            break
        start = point.step
    return start


def _reason(signal: str, direction: Direction, best: _Point, last: _Point, overfits_from: int | None) -> str:
    extreme = "lowest" if direction == "min" else "highest"
    peak = f"{signal} was {extreme} at step {best.step:,} ({best.value:.4g}), to within its noise"
    if overfits_from is not None:
        return f"{peak}; it got worse from step {overfits_from:,} on, to {last.value:.4g} at step {last.step:,}"
    if last.step == best.step:
        return f"{peak}; it was still improving"
    return f"{peak}; later checkpoints are no better"
