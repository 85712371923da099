"""Shows the signals of a run."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lit_splitmask.selection.rule import Decision, Reading


def signals_table(history: Sequence[Reading], decision: Decision, title: str) -> Table:
    """The signals, with their errors, at the first reading, at the one that is kept and at the last."""
    kept = next((reading for reading in history if reading.step == decision.best_step), history[-1])
    readings = {"first": history[0], "kept": kept, "last": history[-1]}
    table = Table("signal", *(f"{name}: step {reading.step:,}" for name, reading in readings.items()), title=title)
    for signal in _names(history):
        cells = [_cell(reading, signal) for reading in readings.values()]
        table.add_row(f"{signal} (decides)" if signal == decision.signal else signal, *cells)
    return table


def _cell(reading: Reading, signal: str) -> str:
    value, error = reading.values.get(signal, math.nan), reading.errors.get(signal, math.nan)
    if not math.isfinite(value):
        return "—"
    return f"{value:.4g} ± {error:.2g}" if math.isfinite(error) else f"{value:.4g}"


def _names(history: Sequence[Reading]) -> list[str]:
    """The signals that were measured, in the order in which they were."""
    names = dict.fromkeys(name for reading in history for name in reading.values)
    return [name for name in names if any(math.isfinite(r.values.get(name, math.nan)) for r in history)]


def draw_signals(path: Path, history: Sequence[Reading], decision: Decision) -> None:
    """Draws each signal over the steps, with its error, and a line at the chosen step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = _names(history)
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
