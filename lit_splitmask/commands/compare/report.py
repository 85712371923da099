"""Reports a comparison: tables on the terminal, JSON, Markdown and plots."""

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lit_splitmask import comparison
from lit_splitmask.commands.compare.options import Options
from lit_splitmask.commands.compare.recommendation import unequal_times
from lit_splitmask.commands.plots import metric, panels, save_figure
from lit_splitmask.comparison import Arm, corrected, difference_of, mean_and_sd, share_verdict
from lit_splitmask.files import write_atomically, write_json
from lit_splitmask.shell import copyable

LABEL_WIDTH = 13
"""Characters per line of an arm's label in a plot."""

Groups = Mapping[float, Sequence[Arm]]
"""The arms by share of the labels."""


def write_report(
    groups: Groups,
    recommendations: Mapping[float, Sequence[str]],
    options: Options,
    out: Path,
    recipe: str,
    chance: str,
) -> None:
    """Prints the tables and verdicts, and writes comparison.json, comparison.md, comparison.png and curves.png.

    Args:
        groups: The arms by share of the labels.
        recommendations: By share, why a way of training is recommended, and the command; empty if none is.
        options: The options of the command.
        out: The comparison's folder.
        recipe: Name of the comparison's recipe.
        chance: A sentence on the accuracy of guessing.
    """
    title = f"Is pre-training worth it on {Path(options.root).resolve().name}?"
    confidence = corrected(len(options.looks))
    console = Console()
    conclusions: dict[float, list[str]] = {}
    for share, arms in groups.items():
        table = Table(*comparison.HEADER, title=f"{share:.0%} of the labels")
        for row in comparison.rows(arms, confidence):
            table.add_row(*row)
        console.print(table)
        console.print(share_verdict(arms, confidence), highlight=False)
        limits = [text for text in (comparison.power(arms, confidence), unequal_times(arms)) if text]
        found = recommendations[share]
        for text in [*limits, *([f"Recommended: {found[0]}"] if found else [])]:
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        if found:
            print(copyable(shlex.split(found[1])))
        conclusions[share] = [*limits, *([f"Recommended: {found[0]}", f"```sh\n{found[1]}\n```"] if found else [])]
    print(f"± is the standard deviation over seeds. {chance}")
    notes = [*_notes(groups, options, recipe), chance]
    results = [
        _as_json(share, arms, conclusions[share], recommendations[share], confidence) for share, arms in groups.items()
    ]
    write_json(out / "comparison.json", {"root": options.root, "recipe": recipe, "results": results})
    text = comparison.markdown(groups, title, notes, conclusions, confidence)
    write_atomically(out / "comparison.md", text.encode())
    draw(groups, title, out / "comparison.png", confidence)
    draw_curves(groups, out, out / "curves.png")
    print(f"Wrote comparison.json, comparison.md, comparison.png and curves.png in {out}.")


def _notes(groups: Groups, options: Options, recipe: str) -> list[str]:
    """How the comparison was made, for the end of the report."""
    arms = [arm for group in groups.values() for arm in group]
    num_seeds, num_looks = len(arms[0].accuracy), len(options.looks)
    notes = [
        f"Recipe `{recipe}`; {num_seeds} seeds, each with its own pre-training; mean ± standard deviation over seeds.",
        "Differences are paired by seed and by test image; the interval holds the chance of both.",
        "Each arm was tuned over the recipe's grid by its mean accuracy on val, at its own length; the best epoch on val was "
        "tested once per seed.",
    ]
    if num_seeds > 1 and not all(_pairs_images(group) for group in groups.values()):
        notes[1] = (
            "Differences are paired by seed. Where an earlier version did not keep which test images were right, or the test "
            "images differ between seeds, the interval is Student's t over the seeds, without the chance of the test images."
        )
    if num_looks > 1:
        notes.append(
            f"Seeds were added until the recommendation was settled, up to {options.max_seeds}. Each interval may be looked at "
            f"{num_looks} times, so its level is {100 * corrected(num_looks):.4g} %, and all looks together hold with 95 %."
        )
    return notes


def _pairs_images(arms: Sequence[Arm]) -> bool:
    """Whether all arms are compared with the first image by image."""
    return all(difference_of(arms[0], arm).num_images for arm in arms[1:])


def _as_json(
    share: float, arms: Sequence[Arm], conclusions: Sequence[str], recommendation: Sequence[str], confidence: float
) -> dict[str, object]:
    by_name = {arm.name: arm for arm in arms}
    return {
        "label_share": share,
        "verdict": share_verdict(arms, confidence),
        "conclusions": conclusions,
        "command": recommendation[1] if recommendation else None,
        "arms": [asdict(arm) for arm in arms],
        "confidence": confidence,
        "difference": asdict(difference_of(by_name["scratch"], by_name["pretrained"], confidence)),
    }


def draw(groups: Groups, title: str, path: Path, confidence: float) -> None:
    """Writes a PNG: one panel per share of the labels, one dot per seed and arm, one line per seed, a bar for the mean."""
    figure, axes = panels(len(groups))
    for axis, (share, arms) in zip(axes, groups.items(), strict=True):
        for seed in arms[0].accuracy:
            axis.plot([100 * arm.accuracy[seed] for arm in arms], "o-", color="0.75", markersize=4, linewidth=0.8)
        for number, arm in enumerate(arms):
            mean, _ = mean_and_sd([100 * a for a in arm.accuracy.values()])
            axis.plot([number - 0.2, number + 0.2], [mean, mean], color="C0", linewidth=3)
            axis.annotate(f"{mean:.1f}", (number, mean), textcoords="offset points", xytext=(0, 7), ha="center")
        axis.set_xticks(range(len(arms)), [textwrap.fill(arm.label, LABEL_WIDTH) for arm in arms], fontsize=8)
        axis.margins(x=0.15, y=0.15)
        axis.set_ylabel("test accuracy, %")
        axis.set_title(
            f"{share:.0%} of the labels\nagainst scratch: {share_verdict(arms, confidence).split(':')[0].lower()}",
            fontsize=10,
        )
    most = max(len(arms) for arms in groups.values())
    figure.set_figwidth(max(figure.get_figwidth(), len(groups) * (1 + 0.95 * most)))  # labels stay apart
    figure.suptitle(title)
    save_figure(figure, path)


def draw_curves(groups: Groups, out: Path, path: Path) -> None:
    """Writes a PNG: pre-training losses over steps, and one panel per share of the labels with val accuracy over steps.

    Args:
        groups: The arms by share of the labels.
        out: The comparison's folder, with the ``metrics.csv`` of its trainings. All settings that were tried are drawn.
        path: The picture.
    """
    figure, axes = panels(1 + len(groups))
    for run in sorted(out.glob("pretrain-seed*/metrics.csv")):
        for key, style in (("train/inpaint", "C0-"), ("val/inpaint", "C1-")):
            axes[0].plot(*metric(run, key), style, linewidth=0.8, label=key)
    axes[0].set_ylabel("inpainting loss")
    axes[0].set_title("own pre-training", fontsize=10)
    for axis, (share, arms) in zip(axes[1:], groups.items(), strict=True):
        for colour, arm in enumerate(arms):
            for run in sorted(out.glob(f"labels{share:g}/{arm.name}-*/metrics.csv")):
                axis.plot(*metric(run, "val/accuracy"), f"C{colour}-", linewidth=0.8, label=arm.label)
        axis.set_ylabel("val accuracy")
        axis.set_title(f"fine-tuning, {share:.0%} of the labels", fontsize=10)
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        distinct = dict(zip(labels, handles, strict=True))
        axis.legend(distinct.values(), distinct.keys(), fontsize=8)
        axis.set_xlabel("step")
    save_figure(figure, path)
