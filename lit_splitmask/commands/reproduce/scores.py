"""Reads what a finished command of a row measured, with its interval and the level of chance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_splitmask.commands.chance import chance_level, chance_of_maps, interval
from lit_splitmask.commands.reproduce.stages import Stage
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_text


@dataclass(frozen=True)
class Score:
    """A measured score.

    Attributes:
        value: The value in percent.
        interval: The ends of its interval over the test images, in percent; None for average precision, whose objects are not
            independent.
        chance: A sentence on guessing; None for average precision, where guessing gives next to nothing.
    """

    value: float
    interval: tuple[float, float] | None = None
    chance: str | None = None


def read_record(path: Path, advice: str) -> dict[str, Any]:
    """Reads a file of this command, or of one that it ran.

    Args:
        path: The file.
        advice: What to do if it is damaged.

    Raises:
        UserError: It is no JSON object.
    """
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {advice}.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (it holds no record): {advice}.")
    return found


def scores_of(stage: Stage, out: Path) -> dict[str, Score]:
    """What a finished command measured of its row's scores.

    Raises:
        UserError: It wrote no scores, or their file is damaged or gone.
    """
    if not stage.scores:
        return {}
    folder = out / stage.name
    again = f"delete {folder}, and the same command runs this part again"
    names = ("probe.json",) if stage.command == "probe" else ("test.json", "val.json")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise UserError(
            f"{folder} has no {' or '.join(names)}: either the dataset has no test images (check the folder of --data.root), or "
            f"the file was removed ({again})."
        )
    found = (_probed if stage.command == "probe" else _tested)(read_record(path, again))
    missing = [written for _, written in stage.scores if written not in found]
    if missing:
        raise UserError(f"{folder} has no {', '.join(missing)}, which the row reports.")
    return {score: found[written] for score, written in stage.scores}


def _tested(report: dict[str, Any]) -> dict[str, Score]:
    """The scores of a fine-tuning by name. Records of earlier versions have fewer intervals."""
    found = {name: Score(100 * value) for name, value in report["scores"].items() if value is not None}
    counts = [sum(row) for row in report.get("confusion", [])]
    of_classes = dict(zip(report.get("classes", []), counts, strict=False))
    if not sum(of_classes.values()):
        return found
    if "test/miou" in found:
        ends = (report.get("intervals") or {}).get("miou")
        found["test/miou"] = Score(found["test/miou"].value, _percent(ends), chance_of_maps(of_classes))
    elif "test/accuracy" in found:
        accuracy = report["scores"]["test/accuracy"]
        ends = interval(accuracy, sum(counts))
        found["test/accuracy"] = Score(100 * accuracy, _percent(ends), chance_level(of_classes))
    return found


def _probed(report: dict[str, Any]) -> dict[str, Score]:
    """The accuracies of a probe, of the whole network and of each block."""
    named = {f"block {number}": block for number, block in enumerate(report["blocks"], start=1)}
    num_images, chance = report["held_out_images"], chance_level(report["held_out"])
    return {
        name: Score(100 * probe["accuracy"], _percent(interval(probe["accuracy"], num_images)), chance)
        for name, probe in {"linear top-1": report["linear"], **named}.items()
    }


def _percent(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (100 * ends[0], 100 * ends[1])
