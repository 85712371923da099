"""Shows the signals of a run: a table and curves."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lit_splitmask.selection.rule import Decision, Reading


def signals_table(history: Sequence[Reading], decision: Decision, title: str) -> Table:
    """The signals with their standard errors at the first reading, the best one and the last."""
    header, *rows = signal_cells(history, decision)
    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def signal_cells(history: Sequence[Reading], decision: Decision) -> list[list[str]]:
    """The cells of :func:`signals_table`: a header, and a row per signal."""
    best = next((reading for reading in history if reading.step == decision.best_step), history[-1])
    readings = {"first": history[0], "best": best, "last": history[-1]}
    rows = [["signal", *(f"{name}: step {reading.step:,}" for name, reading in readings.items())]]
    for signal in _measured_signals(history):
        rows.append([_heading(signal, decision), *(_cell(reading, signal) for reading in readings.values())])
    return rows


def _cell(reading: Reading, signal: str) -> str:
    value, error = reading.values.get(signal, math.nan), reading.errors.get(signal, math.nan)
    if not math.isfinite(value):
        return "—"
    return f"{value:.4g} ± {error:.2g}" if math.isfinite(error) else f"{value:.4g}"


def _heading(signal: str, decision: Decision) -> str:
    return f"{signal} (decides)" if signal == decision.signal else signal


def _measured_signals(history: Sequence[Reading]) -> list[str]:
    """Names of the signals that have a value in any reading, in the order in which they were measured."""
    names = dict.fromkeys(name for reading in history for name in reading.values)
    return [name for name in names if any(math.isfinite(r.values.get(name, math.nan)) for r in history)]


def draw_signals(path: Path, history: Sequence[Reading], decision: Decision) -> None:
    """Writes a PNG of each signal over the steps with its standard errors, and a line at the step to keep."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    signals = _measured_signals(history)
    figure = Figure(figsize=(4 * max(1, len(signals)), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for column, signal in enumerate(signals, start=1):
        axes = figure.add_subplot(1, len(signals), column)
        steps = [reading.step for reading in history]
        values = [reading.values.get(signal, math.nan) for reading in history]
        errors = [reading.errors.get(signal, math.nan) for reading in history]
        known = [0.0 if math.isnan(error) else error for error in errors]
        label = "± one standard error" if any(known) else None
        axes.errorbar(steps, values, yerr=known, marker=".", capsize=2, label=label)
        if decision.best_step is not None:
            kept = f"kept: step {decision.best_step:,}"
            axes.axvline(decision.best_step, color="tab:green", linestyle="--", label=kept)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7)
        axes.set_title(_heading(signal, decision))
        axes.set_xlabel("step")
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=100)
    os.replace(temporary, path)
