"""The pictures of a comparison: accuracies with their intervals, and the curves of all trainings."""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_splitmask.commands.plots import MANY_POINTS, metric, panels, save_figure
from lit_splitmask.comparison import Arm, difference_of, mean_and_sd, share_verdict

Groups = Mapping[float, Sequence[Arm]]
"""The arms by share of the labels."""

LABEL_WIDTH = 20
"""Characters per line of an arm's label in a plot."""

STYLES = ("-", "--", ":", "-.")
"""Lines of the settings that were tried, in turn."""


def draw(groups: Groups, title: str, path: Path, confidence: float) -> None:
    """Writes a PNG with two panels per share of the labels: accuracies from 0 to 100 %, and gains over scratch around 0.

    Args:
        groups: The arms by share of the labels.
        title: Title of the picture.
        path: The picture.
        confidence: Level of the intervals of the gains.
    """
    most = max(len(arms) for arms in groups.values())
    figure, axes = panels(2, len(groups), height=1.6 + 0.55 * most)
    for (left, right), (share, arms) in zip(axes.reshape(-1, 2), groups.items(), strict=True):
        _draw_accuracies(left, arms)
        _draw_gains(right, arms, confidence)
        verdict = share_verdict(arms, confidence).split(":")[0].lower()
        left.set_title(f"{share:.0%} of the labels", fontsize=10)
        right.set_title(f"own pre-training: {verdict}", fontsize=10)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_accuracies(axis: Any, arms: Sequence[Arm]) -> None:
    """A row per arm: a dot per seed, and the mean."""
    for row, arm in enumerate(arms):
        values = [100 * value for value in arm.accuracy.values()]
        mean, _ = mean_and_sd(values)
        axis.plot(values, [row] * len(values), "o", color="0.6", markersize=4, label="one seed")
        axis.plot(mean, row, "|", color="C0", markersize=18, markeredgewidth=3, label="mean over seeds")
        axis.annotate(f"{mean:.1f}", (mean, row), textcoords="offset points", xytext=(0, 11), ha="center", fontsize=8)
    axis.set_xlim(0, 100)
    _label_rows(axis, [arm.label for arm in arms])
    axis.set_xlabel("test accuracy, %")


def _draw_gains(axis: Any, arms: Sequence[Arm], confidence: float) -> None:
    """A row per arm: its gain over training from scratch, with the paired interval if there is more than one seed."""
    baseline = next(arm for arm in arms if arm.name == "scratch")
    axis.axvline(0, color="0.3", linewidth=1, label="same as from scratch")
    for row, arm in enumerate(arms):
        if arm is baseline:
            continue
        found = difference_of(baseline, arm, confidence)
        half = found.half_width if math.isfinite(found.half_width) else None
        label = f"gain, {100 * confidence:.3g} % interval" if half is not None else "gain of one seed (no interval)"
        axis.errorbar(found.mean, row, xerr=half, fmt="s", color="C0", capsize=4, label=label)
        axis.annotate(str(found), (found.mean, row), textcoords="offset points", xytext=(0, 8), ha="center", fontsize=8)
    axis.margins(x=0.2)
    _label_rows(axis, [""] * len(arms))
    axis.set_xlabel("gain over training from scratch, points")


def _label_rows(axis: Any, labels: Sequence[str]) -> None:
    """Names the rows, the first on top."""
    wrapped = [textwrap.fill(label, LABEL_WIDTH, break_on_hyphens=False) for label in labels]
    axis.set_yticks(range(len(labels)), wrapped, fontsize=8)
    axis.set_ylim(len(labels) - 0.5, -0.7)


def draw_curves(groups: Groups, out: Path, path: Path) -> None:
    """Writes a PNG: pre-training losses over steps, and one panel per share of the labels with val accuracy over steps.

    Args:
        groups: The arms by share of the labels.
        out: The comparison's folder, with the ``metrics.csv`` of its trainings. All settings that were tried are drawn.
        path: The picture.
    """
    figure, axes = panels(1 + len(groups))
    for run in sorted(out.glob("pretrain-seed*/metrics.csv")):
        for split, colour in (("train", "C0"), ("val", "C1")):
            found = [(name, metric(run, f"{split}/{name}")) for name in ("inpaint", "loss")]
            for name, (steps, values) in [(name, curve) for name, curve in found if curve[0]][:1]:
                marker = "." if len(steps) < MANY_POINTS else ""
                axes[0].plot(steps, values, f"{marker}-", color=colour, linewidth=0.8, label=f"{split}/{name}")
    axes[0].set_ylabel("loss")
    axes[0].set_title("own pre-training, a line per seed", fontsize=10)
    for axis, (share, arms) in zip(axes[1:], groups.items(), strict=True):
        _draw_finetunings(axis, arms, out / f"labels{share:g}")
        axis.set_ylabel("val accuracy, %")
        axis.set_title(f"fine-tuning, {share:.0%} of the labels, a line per seed", fontsize=10)
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        distinct = dict(zip(labels, handles, strict=True))
        if distinct:
            axis.legend(distinct.values(), distinct.keys(), fontsize=7)
        axis.set_xlabel("step")
    save_figure(figure, path)


def _draw_finetunings(axis: Any, arms: Sequence[Arm], folder: Path) -> None:
    """A colour per arm, a line style per setting; the lines of settings that were not chosen are pale."""
    runs = [
        (arm, setting_of(run.parent.name, arm.name), run)
        for arm in arms
        for run in sorted(folder.glob("*/metrics.csv"))
    ]
    settings = sorted({setting for _, setting, _ in runs if setting is not None})
    for colour, arm in enumerate(arms):
        for setting, run in [(setting, run) for one, setting, run in runs if one is arm and setting is not None]:
            steps, values = metric(run, "val/accuracy")
            chosen = setting == re.sub(r", \S+ × the steps$", "", arm.setting)
            axis.plot(
                steps,
                [100 * value for value in values],
                STYLES[settings.index(setting) % len(STYLES)],
                color=f"C{colour}",
                marker=".",
                markersize=2,
                linewidth=0.8,
                alpha=1.0 if chosen else 0.4,
                label=f"{arm.label}: {setting}" + (" (kept)" if chosen else ""),
            )


def setting_of(folder: str, arm: str) -> str | None:
    """The tuned values of a training as :class:`Arm` has them, from the name of its folder; None for another arm's.

    Args:
        folder: Name of the folder, such as ``scratch_long-x2.5-lr0.001-layer_decay1-seed0``.
        arm: Name of the arm.
    """
    found = re.fullmatch(rf"{re.escape(arm)}(?:-x[\d.]+)?-(.+)-seed\d+", folder)
    if found is None:
        return None
    values = re.split(r"-(?=[A-Za-z_])", found[1])  # not within 1e-05
    return ", ".join(re.sub(r"^([A-Za-z_]+?)(?=-?\d)", r"\1 ", value) for value in values)
