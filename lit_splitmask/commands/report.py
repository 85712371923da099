"""The plots of a comparison."""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.atomic import write_atomically
from lit_splitmask.comparison import Arm, mean_and_sd, share_verdict

LABEL_WIDTH = 13
"""Letters of an arm's label on a line."""


def draw(groups: Mapping[float, Sequence[Arm]], title: str, path: Path) -> None:
    """Writes a PNG: one panel a share of the labels, a dot a seed, lines between the arms of a seed, a bar the mean."""
    figure, axes = _panels(len(groups))
    for axis, (share, arms) in zip(axes, groups.items(), strict=True):
        for seed in arms[0].accuracy:
            axis.plot([100 * arm.accuracy[seed] for arm in arms], "o-", color="0.75", markersize=4, linewidth=0.8)
        for place, arm in enumerate(arms):
            mean, _ = mean_and_sd([100 * a for a in arm.accuracy.values()])
            axis.plot([place - 0.2, place + 0.2], [mean, mean], color="C0", linewidth=3)
            axis.annotate(f"{mean:.1f}", (place, mean), textcoords="offset points", xytext=(0, 7), ha="center")
        axis.set_xticks(range(len(arms)), [textwrap.fill(arm.label, LABEL_WIDTH) for arm in arms], fontsize=8)
        axis.margins(x=0.15, y=0.15)
        axis.set_ylabel("test accuracy, %")
        axis.set_title(
            f"{share:.0%} of the labels\nagainst scratch: {share_verdict(arms).split(':')[0].lower()}", fontsize=10
        )
    most = max(len(arms) for arms in groups.values())
    figure.set_figwidth(max(figure.get_figwidth(), len(groups) * (1 + 0.95 * most)))  # labels stay apart
    figure.suptitle(title)
    _write(figure, path)


def draw_map(features: np.ndarray, labels: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Writes a PNG: t-SNE of features (n, D), a dot an image, coloured by label (n,)."""
    from sklearn.manifold import TSNE

    places = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=0).fit_transform(features)
    figure, axes = _panels(1)
    for label in np.unique(labels):
        chosen = labels == label
        name = class_names[label] if label >= 0 else "no label"
        axes[0].scatter(places[chosen, 0], places[chosen, 1], s=6, label=name, color=f"C{label % 10}")
    if len(np.unique(labels)) <= 20:
        axes[0].legend(fontsize=7, markerscale=2)
    axes[0].set_axis_off()
    _write(figure, path)


def draw_blocks(blocks: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes a PNG: the linear probe's accuracy on the output of each block, with its standard error."""
    figure, axes = _panels(1)
    numbers = range(1, len(blocks) + 1)
    errors = [100 * block["error"] for block in blocks]
    axes[0].errorbar(numbers, [100 * block["accuracy"] for block in blocks], yerr=errors, marker="o", capsize=3)
    axes[0].set_xticks(list(numbers))
    axes[0].set_xlabel("block")
    axes[0].set_ylabel("linear probe, %")
    _write(figure, path)


def draw_curves(groups: Mapping[float, Sequence[Arm]], out: Path, path: Path) -> None:
    """Writes a PNG: the losses of the pre-trainings over steps, then a panel a share with val accuracy over steps.

    Args:
        groups: share of the labels -> arms; says which panels there are.
        out: the comparison's folder, whose runs' ``metrics.csv`` are read. All tried settings of an arm are drawn.
        path: the picture.
    """
    figure, axes = _panels(1 + len(groups))
    for run in sorted(out.glob("pretrain-seed*/metrics.csv")):
        for key, style in (("train/inpaint", "C0-"), ("val/inpaint", "C1-")):
            axes[0].plot(*_series(run, key), style, linewidth=0.8, label=key)
    axes[0].set_ylabel("inpainting loss")
    axes[0].set_title("own pre-training", fontsize=10)
    for axis, (share, arms) in zip(axes[1:], groups.items(), strict=True):
        for colour, arm in enumerate(arms):
            for run in sorted(out.glob(f"labels{share:g}/{arm.name}-*/metrics.csv")):
                axis.plot(*_series(run, "val/accuracy"), f"C{colour}-", linewidth=0.8, label=arm.label)
        axis.set_ylabel("val accuracy")
        axis.set_title(f"fine-tuning, {share:.0%} of the labels", fontsize=10)
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        one = dict(zip(labels, handles, strict=True))
        axis.legend(one.values(), one.keys(), fontsize=8)
        axis.set_xlabel("step")
    _write(figure, path)


def _panels(count: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 4.2 * count, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _series(metrics: Path, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one column of a metrics.csv, where it has a value."""
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(key)]
    return [int(row["step"]) for row in rows], [float(row[key]) for row in rows]


def _write(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
