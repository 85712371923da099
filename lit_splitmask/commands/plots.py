"""Plots of ``probe`` and ``embed``, and what all plots share."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.commands.chance import interval
from lit_splitmask.files import write_atomically

MAIN_SCORES = (
    "val/accuracy",
    "val/macro_accuracy",
    "val/map",
    "val/mae",
    "val/rmse",
    "val/miou",
    "val/pixel_accuracy",
    "val/box/AP",
    "val/mask/AP",
)
"""The scores that are drawn over the steps."""

MANY_POINTS = 30
"""A curve of fewer points is drawn with dots, so that a single point is visible."""


def on_a_map(features: np.ndarray) -> np.ndarray:
    """Places features (n, D) on a map by t-SNE: (n, 2)."""
    from sklearn.manifold import TSNE

    points: np.ndarray = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=0).fit_transform(
        features
    )
    return points


def draw_map(points: np.ndarray, labels: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Writes a PNG of points (n, 2), one dot per image, coloured by label (n,)."""
    figure, axes = panels(1)
    for label in np.unique(labels):
        chosen = labels == label
        name = class_names[label] if label >= 0 else "no label"
        axes[0].scatter(points[chosen, 0], points[chosen, 1], s=6, label=name, color=f"C{label % 10}")
    if len(np.unique(labels)) <= 20:
        axes[0].legend(fontsize=7, markerscale=2)
    axes[0].set_axis_off()
    save_figure(figure, path)


def draw_blocks(blocks: Sequence[Mapping[str, float]], num_images: int, path: Path) -> None:
    """Writes a PNG: the linear probe's accuracy on the output of each block over this many images, with its interval."""
    figure, axes = panels(1)
    numbers = range(1, len(blocks) + 1)
    accuracies = np.array([100 * block["accuracy"] for block in blocks])
    ends = 100 * np.array([interval(block["accuracy"], num_images) for block in blocks])
    reach = np.abs(ends.T - accuracies)
    axes[0].errorbar(numbers, accuracies, yerr=reach, marker="o", capsize=3, label="95 % interval")
    axes[0].legend(fontsize=8)
    axes[0].set_xticks(list(numbers))
    axes[0].set_xlabel("block")
    axes[0].set_ylabel("linear probe, %")
    save_figure(figure, path)


def draw_predicted(truth: np.ndarray, predicted: np.ndarray, name: str, path: Path) -> None:
    """Writes a PNG: the prediction for each image against its true number, (n,) each."""
    figure, axes = panels(1)
    low, high = float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))
    axes[0].plot([low, high], [low, high], color="0.6", linewidth=1, label="predicted = true")
    axes[0].scatter(truth, predicted, s=9, alpha=0.6, label="an image")
    axes[0].set_aspect("equal", adjustable="datalim")
    axes[0].legend(fontsize=8)
    axes[0].set_xlabel(f"true {name}", parse_math=False)
    axes[0].set_ylabel(f"predicted {name}", parse_math=False)
    save_figure(figure, path)


def panels(columns: int, rows: int = 1, *, height: float = 4.2) -> tuple[Any, Any]:
    """A figure and its panels, row by row: an array (rows · columns,). The height is that of a row, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 4.2 * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def metric(metrics: Path, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one column of a metrics.csv, from the rows that have a value."""
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(key)]
    return [int(row["step"]) for row in rows], [float(row[key]) for row in rows]


def draw_history(metrics: Sequence[Path]) -> bytes | None:
    """Draws the losses and the main scores of a run over its steps.

    Args:
        metrics: The files of the run, in the order of their steps.

    Returns:
        A PNG; None if they hold no losses.
    """
    curves = {key: [metric(path, key) for path in metrics] for key in ("train/loss", "val/loss", *MAIN_SCORES)}
    found = {key: _joined(parts) for key, parts in curves.items() if any(steps for steps, _ in parts)}
    groups = [[key for key in found if key.endswith("/loss")], [key for key in found if key in MAIN_SCORES]]
    groups = [group for group in groups if group]
    if not groups:
        return None
    figure, axes = panels(len(groups))
    for axis, group in zip(axes, groups, strict=True):
        for key in group:
            steps, values = found[key]
            axis.plot(steps, values, "-" if len(steps) > MANY_POINTS else ".-", linewidth=0.9, label=key)
        axis.set_xlabel("step")
        axis.legend(fontsize=8)
    return png(figure)


def _joined(parts: Sequence[tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """One curve of several, by step; a later file replaces what it repeats."""
    points = {step: value for steps, values in parts for step, value in zip(steps, values, strict=True)}
    return sorted(points), [points[step] for step in sorted(points)]


def save_figure(figure: Any, path: Path) -> None:
    """Writes a PNG, atomically."""
    write_atomically(path, png(figure))


def png(figure: Any) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
