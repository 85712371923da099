"""The numbers of a run, from the files beside its weights."""

import csv
import json
from pathlib import Path
from typing import Any

from lit_splitmask.checkpoints import Weights
from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file, read_text

_REPORTS = ("test.json", "val.json")


def run_numbers(weights: Weights) -> list[tuple[str, float]]:
    """Scores of a run by name, such as ``test/accuracy``: those of its report, and those on val when the weights were saved.

    Scores of single classes are left out.

    Args:
        weights: The weights; files in their folder are read if there are any.

    Raises:
        UserError: A report cannot be read.
    """
    folder = Path(weights.source).parent
    found: dict[str, float] = {}
    try:
        if weights.info.get("class_names"):  # the report is on a trained head
            for path in filter(is_file, (folder / name for name in _REPORTS)):
                found |= _reported(path)
        found |= _on_val(folder, weights.info.get("step"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        raise UserError(
            f"The report or the metrics in {folder} cannot be read ({error!r}): copy the weights to another folder, and export "
            "from there."
        ) from None
    return [(name, value) for name, value in found.items() if name.count("/") == 1]


def _reported(path: Path) -> dict[str, float]:
    """The scores of a report."""
    scores: dict[str, Any] = json.loads(read_text(path))["scores"]
    return {name: float(value) for name, value in scores.items() if value is not None}


def _on_val(folder: Path, step: Any) -> dict[str, float]:
    """The scores on val in the row of the metrics that was written at a step; none without such a row."""
    last = str(step - 1) if isinstance(step, int) else None  # the log counts from 0
    for path in sorted(folder.glob("metrics*.csv")):
        for row in csv.DictReader(read_text(path).splitlines()):
            scores = {name: row[name] for name in row if name and name.startswith("val/") and row[name]}
            if scores and row.get("step") == last:
                return {name: float(value) for name, value in scores.items()}
    return {}
