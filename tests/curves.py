"""The regret of the rule on recorded and synthetic curves: the table of ``docs/overfitting.md``.

python tests/curves.py
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lit_splitmask.selection.rule import Reading, Rule, decide
from lit_splitmask.selection.signals import KNN, HeldOutLoss, Linear, LossGap, RankMe, ShortFinetune

DIRECTIONS = {signal.name: signal.better for signal in (HeldOutLoss, LossGap, RankMe, KNN, Linear, ShortFinetune)}
RECORDED = Path(__file__).parents[1] / "docs" / "overfitting.json"
NUM_READINGS = 20
NUM_DRAWS = 200
ERROR = 0.02
"""Standard error of the synthetic signals, as of an accuracy over about 500 images."""

Curve = tuple[list[Reading], list[float]]
"""Readings, and the true accuracy of each checkpoint."""

SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "overfitting": lambda t: 0.7 + 0.1 * np.minimum(t / 0.4, 1) - 0.1 * np.maximum(t - 0.4, 0) / 0.6,
    "late overfitting": lambda t: 0.7 + 0.1 * np.minimum(t / 0.8, 1) - 0.1 * np.maximum(t - 0.8, 0) / 0.2,
    "plateau": lambda t: 0.7 + 0.1 * np.minimum(t / 0.3, 1),
    "steady rise": lambda t: 0.7 + 0.1 * t,
    "slow start": lambda t: 0.7 + 0.1 * np.maximum(t - 0.6, 0) / 0.4,
    "noise alone": lambda t: np.full_like(t, 0.75),
}


def synthetic(shape: str, generator: np.random.Generator, *, signal: str = "linear", missing: float = 0.0) -> Curve:
    """A noisy signal around a known accuracy; some readings may be missing."""
    times = np.arange(1, NUM_READINGS + 1) / NUM_READINGS
    true = SHAPES[shape](times)
    seen = true + ERROR * generator.standard_normal(NUM_READINGS)
    seen[generator.random(NUM_READINGS) < missing] = math.nan
    errors = {} if signal == "rankme" else {signal: ERROR}
    readings = [Reading(100 * number, {signal: float(value)}, errors) for number, value in enumerate(seen, start=1)]
    return readings, true.tolist()


def recorded() -> dict[str, list[Curve]]:
    """Curves of the recorded runs."""
    curves: dict[str, list[Curve]] = {}
    for name, runs in json.loads(RECORDED.read_text()).items():
        for run in runs:
            readings = [Reading.from_json(entry) for entry in run["history"]]
            curves.setdefault(f"recorded: {name}", []).append((readings, run["accuracies"]))
    return curves


def regrets(curves: Sequence[Curve]) -> dict[str, float]:
    """Mean points of accuracy that each way of choosing loses against the best checkpoint."""
    lost: dict[str, list[float]] = {"the rule": [], "best of monitor": [], "last": [], "a random one": []}
    for readings, accuracies in curves:
        by_step = {reading.step: value for reading, value in zip(readings, accuracies, strict=True)}
        total = readings[-1].step
        chosen = {
            "the rule": decide(readings, directions=DIRECTIONS, total_steps=total, rule=Rule()).best_step,
            "best of monitor": decide(
                readings, directions=DIRECTIONS, total_steps=total, rule=Rule(window=1, margin=0.0)
            ).best_step,
            "last": total,
        }
        for name, step in chosen.items():
            assert step is not None
            lost[name].append(max(accuracies) - by_step[step])
        lost["a random one"].append(max(accuracies) - float(np.mean(accuracies)))
    return {name: 100 * float(np.mean(values)) for name, values in lost.items()}


def all_curves() -> dict[str, list[Curve]]:
    """Every row of the table."""
    curves: dict[str, list[Curve]] = {}
    for number, shape in enumerate(SHAPES):
        draws = [np.random.default_rng([number, draw]) for draw in range(NUM_DRAWS)]
        curves[shape] = [synthetic(shape, generator) for generator in draws]
    draws = [np.random.default_rng([100, draw]) for draw in range(NUM_DRAWS)]
    curves["overfitting, 30 % missing"] = [synthetic("overfitting", generator, missing=0.3) for generator in draws]
    curves["overfitting, no labels, error unknown"] = [
        synthetic("overfitting", generator, signal="rankme") for generator in draws
    ]
    return curves | recorded()


def table() -> str:
    """The table in Markdown."""
    rows = {name: regrets(curves) for name, curves in all_curves().items()}
    head = list(next(iter(rows.values())))
    lines = [f"| curve | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    lines += [f"| {name} | {' | '.join(f'{row[column]:.2f}' for column in head)} |" for name, row in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
