"""Reports a comparison: tables on the terminal, JSON, Markdown and plots."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lit_splitmask import comparison
from lit_splitmask.commands.compare.options import Options
from lit_splitmask.commands.compare.pictures import Groups, draw, draw_curves
from lit_splitmask.commands.compare.recommendation import unequal_times
from lit_splitmask.comparison import Arm, corrected, difference_of, share_verdict
from lit_splitmask.files import as_typed, write_atomically, write_json
from lit_splitmask.shell import copyable, say


def write_report(
    groups: Groups,
    recommendations: Mapping[float, Sequence[str]],
    options: Options,
    out: Path,
    recipe: str,
    remarks: Sequence[str],
) -> None:
    """Prints the tables and verdicts, and writes comparison.json, comparison.md, comparison.png and curves.png.

    Args:
        groups: The arms by share of the labels.
        recommendations: By share, why a way of training is recommended, and the command; empty if none is.
        options: The options of the command.
        out: The comparison's folder.
        recipe: Name of the comparison's recipe.
        remarks: Sentences on the accuracy of guessing, and on how the arms differ.
    """
    title = f"Is pre-training worth it on {as_typed(options.root).name}?"
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
            say(text)
        if found:
            print(copyable(shlex.split(found[1])))
        conclusions[share] = [*limits, *([f"Recommended: {found[0]}", f"```sh\n{found[1]}\n```"] if found else [])]
    say(" ".join(["± is the standard deviation over seeds.", *remarks]))
    notes = [*_notes(groups, options, recipe), *remarks]
    results = [
        _as_json(share, arms, conclusions[share], recommendations[share], confidence) for share, arms in groups.items()
    ]
    write_json(out / "comparison.json", {"root": options.root, "recipe": recipe, "results": results})
    text = comparison.markdown(groups, title, notes, conclusions, confidence)
    write_atomically(out / "comparison.md", text.encode())
    draw(groups, title, out / "comparison.png", confidence)
    draw_curves(groups, out, out / "curves.png")
    say(f"Wrote comparison.json, comparison.md, comparison.png and curves.png in {out}. To view it as a page:")
    print(copyable(["lit-splitmask", "report", str(out)]))


def _notes(groups: Groups, options: Options, recipe: str) -> list[str]:
    """How the comparison was made, for the end of the report."""
    arms = [arm for group in groups.values() for arm in group]
    num_seeds, num_looks = len(arms[0].accuracy), len(options.looks)
    notes = [
        f"Recipe `{recipe}`; {num_seeds} seeds, each with its own pre-training; mean ± standard deviation over seeds.",
        "Differences are paired by seed and by test image; the interval covers the randomness of both.",
        "Each arm was tuned over the recipe's grid by its mean accuracy on val, at its own length; the best epoch on val was "
        "tested once per seed.",
    ]
    if num_seeds > 1 and not all(_pairs_images(group) for group in groups.values()):
        notes[1] = (
            "Differences are paired by seed. Where an earlier version did not keep which test images were right, or the test "
            "images differ between seeds, the interval is Student's t over the seeds, without the randomness of the test images."
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
