"""Draws the signals of a run."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from lit_splitmask.selection import DIRECTIONS, Decision, Reading


def draw_signals(path: Path, history: Sequence[Reading], decision: Decision) -> None:
    """Draws each signal over the steps, with its error, and a line at the chosen step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in DIRECTIONS if any(math.isfinite(r.values.get(name, math.nan)) for r in history)]
    names += sorted({name for reading in history for name in reading.values} - set(DIRECTIONS))
    figure = Figure(figsize=(4 * max(1, len(names)), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), place)
        steps = [reading.step for reading in history]
        values = [reading.values.get(name, math.nan) for reading in history]
        errors = [reading.errors.get(name, math.nan) for reading in history]
        axes.errorbar(steps, values, yerr=[0.0 if math.isnan(e) else e for e in errors], marker=".", capsize=2)
        if decision.best_step is not None:
            axes.axvline(decision.best_step, color="tab:green", linestyle="--")
        axes.set_title(f"{name}{' (decides)' if name == decision.signal else ''}")
        axes.set_xlabel("step")
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=100)
    os.replace(temporary, path)
