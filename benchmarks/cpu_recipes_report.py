"""Used by ``cpu_recipes.py``: the table and the curves of the finished runs."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PANELS = {"knn": "k-NN on val, %", "linear": "linear probe on val, %", "finetuned": "fine-tuned on a tenth, val, %"}
Runs = dict[str, list[dict[str, Any]]]
"""For each variant, its results by seed: scores by quarter of the budget, 0 for the untrained network."""


def read(out: Path, minutes: float) -> Runs:
    """The variants whose runs of this length have been judged to the end."""
    runs: Runs = {}
    for path in sorted(out.glob(f"{minutes:g}min-seed*/*/result.json")):
        found = json.loads(path.read_text())
        if "knn" in found.get("4", {}):
            runs.setdefault(path.parent.name, []).append(found)
    return runs


def score(of_seeds: list[dict[str, Any]], quarter: int, name: str) -> float | None:
    """Mean of a score over seeds, and draws of the labels, in percent; None if it was not measured."""
    values: list[float] = []
    for found in of_seeds:
        value = found.get(str(quarter), {}).get(name, [])
        values += value if isinstance(value, list) else [value]
    return 100 * mean(values) if values else None


def report(out: Path, minutes: float, picture: Path) -> None:
    """Prints the table in Markdown and draws the curves."""
    runs, costs = read(out, minutes), json.loads((out / "costs.json").read_text())
    names = [name for name in costs if name in runs]
    print(f"\n{minutes:g} CPU minutes each; {costs['machine']}, {costs['precision']}\n")
    columns = ["variant", "seeds", "ms per step", "steps", "k-NN at 1/4", "1/2", "1", "linear at 1/4", "1/2", "1"]
    print(f"| {' | '.join([*columns, 'fine-tuned at 1/2', '1'])} |\n|{'---|' * (len(columns) + 2)}")
    for name in names:
        cost = costs[name]
        steps = round((60 * minutes - cost["before"]) / cost["step"])
        cells = [name, str(len(runs[name])), f"{1000 * cost['step']:.0f}", f"{steps:,}"]
        places = [(kind, quarter) for kind in ("knn", "linear") for quarter in (1, 2, 4)]
        for kind, quarter in [*places, ("finetuned", 2), ("finetuned", 4)]:
            value = score(runs[name], quarter, kind)
            cells.append("" if value is None else f"{value:.1f}")
        print(f"| {' | '.join(cells)} |")
    draw(runs, names, minutes, picture)


def draw(runs: Runs, names: list[str], minutes: float, path: Path) -> None:
    """Draws each score over CPU minutes, one line per variant."""
    measured = [kind for kind in PANELS if any(score(runs[name], 4, kind) is not None for name in names)]
    figure = Figure(figsize=(6 * len(measured), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(measured), squeeze=False)[0]
    for axes, kind in zip(grid, measured, strict=True):
        for number, name in enumerate(names):
            points = [(minutes * quarter / 4, score(runs[name], quarter, kind)) for quarter in range(5)]
            known = [(at, value) for at, value in points if value is not None]
            style = "--" if name.startswith("MAE") else "-"
            label = name if kind == "knn" else None
            axes.plot([at for at, _ in known], [value for _, value in known], f"o{style}", color=f"C{number % 10}",
                      markersize=4, label=label)  # fmt: skip
        axes.set_title(PANELS[kind], fontsize=10)
        axes.set_xlabel("CPU minutes of pre-training")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=90)
