"""Reads the records of a folder, and puts numbers into words."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_splitmask.commands.chance import interval, interval_text, percent
from lit_splitmask.files import read_text

CAPTIONS = {
    "comparison.png": "Test accuracy of each way of training, and its gain over training from scratch.",
    "curves.png": "The curves of all trainings.",
    "halves.png": "What each half sees, the true words, and its predictions.",
    "masked.png": "What the network sees, and what it predicts for the rest.",
    "words.png": "The most used visual words, with their shares.",
    "predicted.png": "Predictions for held-out images against their true numbers.",
    "predictions.png": "Predictions on held-out images.",
    "probe.png": "A linear probe of the output of each block.",
    "selection.png": "The signals that chose the checkpoint.",
}
"""Captions of pictures by file."""


def read_json(path: Path) -> dict[str, Any]:
    """Reads a record.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a JSON object.
    """
    found = json.loads(read_text(path))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} does not hold a record")
    return found


def pictures_in(folder: Path) -> list[tuple[Path, str]]:
    """The pictures of a run, with captions, those of the selection last."""
    paths = [*sorted(folder.glob("*.png")), folder / "checkpoints" / "selection.png"]
    return [(path, CAPTIONS.get(path.name, path.name)) for path in paths]


def of_images(hits: int, number: int) -> list[str]:
    """A share of images in percent, its interval, and the number of images; the interval is Wilson's."""
    if not number:
        return ["—", "—", "0"]
    return [percent(hits / number), interval_text(interval(hits / number, number)), f"{number:,}"]


def number(value: Any, error: Any = None) -> str:
    """A number with its standard error, if both are known."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "—"
    known = isinstance(error, int | float) and math.isfinite(error)
    return f"{value:.4g} ± {error:.2g}" if known else f"{value:.4g}"


def in_words(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1] if names else ""
