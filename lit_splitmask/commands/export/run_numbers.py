"""The numbers of a run, from the files beside its weights."""

import csv
import json
import re
from pathlib import Path
from typing import Any

from lit_splitmask.checkpoints import Weights
from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file, read_text

_REPORTS = ("test.json", "val.json")


def run_numbers(weights: Weights) -> list[tuple[str, float]]:
    """Scores of a run by name, such as ``test/accuracy``: those of its report, and those on val when the weights were saved.

    Args:
        weights: The weights; files in their folder are read if there are any.

    Raises:
        UserError: A report cannot be read.
    """
    folder = Path(weights.source).parent
    found = dict(_on_val(folder, weights.info.get("step")))
    if not weights.info.get("class_names"):  # the report is on a trained head
        return list(found.items())
    for name in _REPORTS:
        if is_file(folder / name):
            found |= _reported(folder / name)
    return list(found.items())


def _reported(path: Path) -> dict[str, float]:
    try:
        report = json.loads(read_text(path))
        scores: dict[str, Any] = report["scores"]
        return {name: float(value) for name, value in scores.items() if value is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read as the report of a run ({error!r}): move it away, and export again."
        ) from None


def _on_val(folder: Path, step: Any) -> list[tuple[str, float]]:
    """The scores on val in the row of the metrics that was written at a step; none without such a row."""
    for path in sorted(folder.glob("metrics*.csv")):
        for row in csv.DictReader(read_text(path).splitlines()):
            scores = [(name, row[name]) for name in row if name and name.startswith("val/") and row[name]]
            if scores and row.get("step") == str(_last_step(step)):
                return [(name, float(value)) for name, value in scores if re.fullmatch(r"[-+.\de]+", value)]
    return []


def _last_step(step: Any) -> Any:
    """The number in the log of the last of so many steps; it counts from 0."""
    return step - 1 if isinstance(step, int) else None
