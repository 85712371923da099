"""Reports a comparison: tables on the terminal, JSON, Markdown and plots."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lit_splitmask import comparison
from lit_splitmask.commands.compare.options import Options
from lit_splitmask.commands.plots import metric, panels, save_figure
from lit_splitmask.comparison import Arm, mean_and_sd, share_verdict
from lit_splitmask.files import write_atomically, write_json

LABEL_WIDTH = 13
"""Characters per line of an arm's label in a plot."""

Groups = Mapping[float, Sequence[Arm]]
"""The arms by share of the labels."""


def write_report(groups: Groups, options: Options, out: Path, recipe: str) -> None:
    """Prints the tables and verdicts, and writes comparison.json, comparison.md, comparison.png and curves.png."""
    title = f"Is pre-training worth it on {Path(options.root).resolve().name}?"
    notes = [
        f"Recipe `{recipe}`; {options.seeds} seeds, each with its own pre-training; mean ± standard deviation over seeds.",
        "Differences are paired by seed; the interval is Student's t over the seeds.",
        "Each arm was tuned over the same grid by its mean accuracy on val; the best epoch on val was tested once per seed.",
    ]
    console = Console()
    for share, arms in groups.items():
        table = Table(*comparison.HEADER, title=f"{share:.0%} of the labels")
        for row in comparison.rows(arms):
            table.add_row(*row)
        console.print(table)
        console.print(share_verdict(arms), highlight=False)
    results = [_as_json(share, arms) for share, arms in groups.items()]
    write_json(out / "comparison.json", {"root": options.root, "recipe": recipe, "results": results})
    write_atomically(out / "comparison.md", comparison.markdown(groups, title, notes).encode())
    draw(groups, title, out / "comparison.png")
    draw_curves(groups, out, out / "curves.png")
    print(f"Wrote comparison.json, comparison.md, comparison.png and curves.png in {out}.")


def _as_json(share: float, arms: Sequence[Arm]) -> dict[str, object]:
    by_name = {arm.name: arm for arm in arms}
    difference = comparison.paired_difference(by_name["scratch"].accuracy, by_name["pretrained"].accuracy)
    return {
        "label_share": share,
        "verdict": share_verdict(arms),
        "arms": [asdict(arm) for arm in arms],
        "difference": asdict(difference),
    }


def draw(groups: Groups, title: str, path: Path) -> None:
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
            f"{share:.0%} of the labels\nagainst scratch: {share_verdict(arms).split(':')[0].lower()}", fontsize=10
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
