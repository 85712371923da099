"""The page of a comparison."""

import shlex
from pathlib import Path
from typing import Any

from lit_splitmask.commands.compare.experiment import LABELS
from lit_splitmask.commands.report.page import Section, Table
from lit_splitmask.commands.report.records import CAPTIONS, pictures_in, read_json
from lit_splitmask.comparison import CONFIDENCE, HEADER, Arm, rows
from lit_splitmask.files import is_file, read_text


def comparison_sections(folder: Path) -> list[Section]:
    """The parts of a comparison's page.

    Args:
        folder: The folder, which has ``comparison.json``.
    """
    found = read_json(folder / "comparison.json")
    sections = [_share(result) for result in found["results"]]
    curves = Section("Pictures")
    curves.show((folder / name, CAPTIONS[name]) for name in ("comparison.png", "curves.png"))
    return [*sections, curves, *_pretrainings(folder), _how(folder, found)]


def _share(result: dict[str, Any]) -> Section:
    """The table and the verdict for one share of the labels."""
    confidence = result.get("confidence", CONFIDENCE)
    section = Section(f"With {result['label_share']:.0%} of the labels", verdict=result["verdict"])
    header = [title.replace("95 %", f"{100 * confidence:.3g} %") for title in HEADER]
    section.tables.append(Table(header, rows(_arms(result), confidence), "± is the standard deviation over seeds."))
    section.texts += [text for text in result.get("conclusions", []) if not text.startswith("```")]
    if result.get("command"):
        section.commands.append(("The recommended command:", result["command"]))
    return section


def _arms(result: dict[str, Any]) -> list[Arm]:
    """The arms, whose seeds are texts in JSON."""

    def by_seed(value: Any) -> Any:
        return {int(seed): entry for seed, entry in value.items()} if isinstance(value, dict) else value

    return [Arm(**{name: by_seed(value) for name, value in arm.items()}) for arm in result["arms"]]


def _pretrainings(folder: Path) -> list[Section]:
    """Which checkpoint each pre-training keeps, and the pictures of the first."""
    runs = [path.parent for path in sorted(folder.glob("*-seed*/config.yaml"))]
    if not runs:
        return []
    section = Section("Pre-training: which checkpoint to keep")
    kept = []
    for run in runs:
        selection = run / "checkpoints" / "selection.json"
        chosen = read_json(selection) if is_file(selection) else {}
        step = chosen.get("best_step")
        kept.append([run.name, "last" if step is None else f"{step:,}", chosen.get("reason", "nothing was measured")])
    section.tables.append(Table(["pre-training", "step", "why"], kept, "The weights are backbone.safetensors in each."))
    section.show((path, f"{runs[0].name}: {caption}") for path, caption in pictures_in(runs[0]))
    return [section]


def _how(folder: Path, found: dict[str, Any]) -> Section:
    """How the comparison was made."""
    section = Section("How it was made")
    report = folder / "comparison.md"
    if is_file(report):
        section.texts += [line[2:].replace("`", "") for line in read_text(report).splitlines() if line.startswith("- ")]
    arms = found["results"][0]["arms"]
    names = [arm["name"] for arm in arms]
    methods = [name for name in names if name not in LABELS]
    command = [
        "lit-splitmask",
        "compare",
        "--data.root",
        found["root"],
        "--recipe",
        found["recipe"],
        "--out",
        str(folder),
    ]
    command += ["--seeds", str(len(arms[0]["accuracy"]))]
    command += ["--label_shares", ",".join(f"{result['label_share']:g}" for result in found["results"])]
    command += ["--methods", ",".join(methods)] if methods else []
    command += [] if "scratch_long" in names else ["--equal_time", "false"]
    repeated = (
        "The command, as far as it is recorded; --weights, --layout, --set_pretrain and --set_finetune, if given, are in the "
        "result.json of each training:"
    )
    section.commands.append((repeated, shlex.join(command)))
    return section
