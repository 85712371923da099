"""Plots of ``probe`` and ``embed``, and what all plots share."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.files import write_atomically


def draw_map(features: np.ndarray, labels: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Writes a PNG: t-SNE of features (n, D), one dot per image, coloured by label (n,)."""
    from sklearn.manifold import TSNE

    points = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=0).fit_transform(features)
    figure, axes = panels(1)
    for label in np.unique(labels):
        chosen = labels == label
        name = class_names[label] if label >= 0 else "no label"
        axes[0].scatter(points[chosen, 0], points[chosen, 1], s=6, label=name, color=f"C{label % 10}")
    if len(np.unique(labels)) <= 20:
        axes[0].legend(fontsize=7, markerscale=2)
    axes[0].set_axis_off()
    save_figure(figure, path)


def draw_blocks(blocks: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes a PNG: the linear probe's accuracy on the output of each block, with its standard error."""
    figure, axes = panels(1)
    numbers = range(1, len(blocks) + 1)
    errors = [100 * block["error"] for block in blocks]
    axes[0].errorbar(numbers, [100 * block["accuracy"] for block in blocks], yerr=errors, marker="o", capsize=3)
    axes[0].set_xticks(list(numbers))
    axes[0].set_xlabel("block")
    axes[0].set_ylabel("linear probe, %")
    save_figure(figure, path)


def panels(count: int) -> tuple[Any, Any]:
    """A figure and its ``count`` panels, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 4.2 * count, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def metric(metrics: Path, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one column of a metrics.csv, from the rows that have a value."""
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(key)]
    return [int(row["step"]) for row in rows], [float(row[key]) for row in rows]


def save_figure(figure: Any, path: Path) -> None:
    """Writes a PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
