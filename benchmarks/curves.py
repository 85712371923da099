"""Shared by the benchmarks that train: curves of what was logged, and pictures of them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curve = tuple[list[int], list[float]]
"""Steps and values."""
MOST_POINTS = 25


def logged(folder: Path, name: str) -> Curve:
    """A column of a run's metrics.csv and, if the run was resumed, of the metrics-….csv before it."""
    found: dict[int, float] = {}
    for path in sorted(folder.glob("metrics*.csv")):
        with path.open(newline="") as file:
            found |= {int(row["step"]) + 1: float(row[name]) for row in csv.DictReader(file) if row.get(name)}
    return list(found), list(found.values())


def smoothed(curve: Curve) -> Curve:
    """A long curve as the means of at most 25 pieces."""
    size = -(-len(curve[0]) // MOST_POINTS)
    pieces = range(0, len(curve[0]), max(1, size))
    return [curve[0][min(p + size, len(curve[0])) - 1] for p in pieces], [mean(curve[1][p : p + size]) for p in pieces]


def draw(path: Path, panels: Mapping[str, Mapping[str, Sequence[Curve]]]) -> None:
    """Writes a PNG with one panel per score, one colour per arm and one line per seed."""
    figure = Figure(figsize=(4.5 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for column, (title, arms) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), column)
        for number, (arm, curves) in enumerate(arms.items()):
            for which, (steps, values) in enumerate(map(smoothed, curves)):
                axes.plot(steps, values, "o-", color=f"C{number}", markersize=3, label=arm if which == 0 else None)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)
