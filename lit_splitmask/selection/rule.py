"""Which checkpoint to keep, whether to go on, and why: pure functions of the history of some signals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lit_splitmask.files import without_nan

Direction = Literal["max", "min"]
"""Whether a larger or a smaller value of a signal is better."""

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

    def as_json(self) -> dict[str, Any]:
        """Plain values, with None for what is not finite."""
        return {"step": self.step, "values": without_nan(dict(self.values)), "errors": without_nan(dict(self.errors))}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Reading":
        """The reading that :meth:`as_json` was asked for, with NaN for None."""

        def numbers(values: Mapping[str, float | None]) -> dict[str, float]:
            return {name: math.nan if value is None else value for name, value in values.items()}

        return cls(stored["step"], numbers(stored["values"]), numbers(stored["errors"]))


@dataclass(frozen=True)
class Rule:
    """How signals decide.

    The default order is that of ``docs/overfitting.md``: RankMe, with labels or without, followed fine-tuned accuracy closest,
    also where the linear probe fell while the accuracy rose. The held-out loss comes last: it was found to rise long before
    fine-tuning suffers. Window and margin lose the least over the synthetic curves there.

    Args:
        signals: In order of preference; the first that could be measured decides alone.
        window: A signal counts as its mean over so many readings, up to the one that is judged.
        margin: Standard errors of that mean that an improvement must exceed.
        patience: Share of the budget without an improvement after which training stops, if at least three readings say so and
            the last is no better than the best, not even within the noise.
    """

    signals: Sequence[str] = ("rankme", "linear", "held_out_loss")
    window: int = 2
    margin: float = 0.25
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


def decide(
    history: Sequence[Reading],
    *,
    directions: Mapping[str, Direction],
    total_steps: int,
    warmup_steps: int = 0,
    rule: Rule = Rule(),
) -> Decision:
    """Walks through the readings: a later one becomes the best only by an improvement beyond the noise.

    So the earlier of two equals is kept, and the best is always the reading at which it was found: the decision after a resume is
    the same, and the checkpoint can be saved at once.

    Args:
        history: By rising step.
        directions: By signal, for all signals of the rule; a signal's own ``better``.
        total_steps: Of the whole budget.
        warmup_steps: Before which training never stops.
        rule: How the signals decide.
    """
    signal = deciding_signal(history, rule.signals)
    if signal is None:
        latest = history[-1].step if history else None
        return Decision(latest, False, f"none of {', '.join(rule.signals)} could be measured: the latest is kept")
    points = _smooth(history, signal, rule.window, directions[signal])
    best = points[0]
    for point in points[1:]:
        if point.better_than(best) > rule.margin * max(point.error, best.error):
            best = point
    overfits_from = _overfits_from(best, points, rule.margin)
    if len(points) == 1:
        return Decision(
            best.step, False, f"{signal} was measured only once ({best.value:.4g}): there was no choice", signal
        )
    num_since = sum(point.step > best.step for point in points)
    waited = history[-1].step - max(best.step, warmup_steps) >= rule.patience * total_steps
    stop = waited and num_since >= LEAST_READINGS and points[-1].better_than(best) <= 0
    return Decision(
        best.step, stop, _reason(signal, directions[signal], best, points[-1], overfits_from), signal, overfits_from
    )


def deciding_signal(history: Sequence[Reading], signals: Sequence[str]) -> str | None:
    """The first of the signals that the first reading with any of them has: it stays the same for the rest of a run."""
    for reading in history:
        for name in signals:
            if math.isfinite(reading.values.get(name, math.nan)):
                return name
    return None


@dataclass(frozen=True)
class _Point:
    """A signal at one step, smoothed: more is better.

    Both errors of a difference come from the same images with the same masks, so that most of their noise is shared: the larger
    of the two is taken for that of the difference.
    """

    step: int
    score: float
    error: float
    value: float

    def better_than(self, other: "_Point") -> float:
        return self.score - other.score


def _smooth(history: Sequence[Reading], signal: str, window: int, direction: Direction) -> list[_Point]:
    """Means over each reading and those before it; readings without a value are passed over."""
    sign = 1 if direction == "max" else -1
    readings = [reading for reading in history if math.isfinite(reading.values.get(signal, math.nan))]
    points = []
    for place, reading in enumerate(readings, start=1):
        recent = readings[max(0, place - window) : place]
        score = sign * sum(other.values[signal] for other in recent) / len(recent)
        errors = [other.errors.get(signal, 0.0) for other in recent]
        known = [error for error in errors if math.isfinite(error)]
        error = math.sqrt(sum(value**2 for value in known)) / len(recent)
        points.append(_Point(reading.step, score, error, reading.values[signal]))
    return points


def _overfits_from(best: _Point, points: Sequence[_Point], margin: float) -> int | None:
    start = None
    for point in reversed(points):
        noise = max(margin, 2.0) * max(point.error, best.error)
        if point.step <= best.step or not best.better_than(point) > noise:
            break
        start = point.step
    return start


def _reason(signal: str, direction: Direction, best: _Point, last: _Point, overfits_from: int | None) -> str:
    extreme = "lowest" if direction == "min" else "highest"
    said = f"{signal} {extreme} within its noise ({best.value:.4g} at step {best.step:,})"
    if overfits_from is not None:
        return f"{said}; it got worse from step {overfits_from:,} on, to {last.value:.4g} at step {last.step:,}"
    if last.step == best.step:
        return f"{said}; it was still improving"
    return f"{said}; later checkpoints are no better"
