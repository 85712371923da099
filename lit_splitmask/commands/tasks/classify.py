"""What ``finetune`` reports about a classifier."""

import math
from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from lit_splitmask.commands.chance import chance_level, standard_error, with_error
from lit_splitmask.commands.tasks.report import TaskReport
from lit_splitmask.datamodules.crop_data import CropData
from lit_splitmask.modules import Classify, Regress


def report(found: TaskReport) -> list[str]:
    """Tests the classifier if there are test images, and prints the scores.

    Returns:
        The files written.
    """
    if "test" not in found.data.source.splits:
        return []
    scores = found.trainer.test(found.module, datamodule=found.data, verbose=False)[0]
    if not found.trainer.is_global_zero:
        return []
    assert isinstance(found.module, Classify)
    several = found.module.several_labels
    values = {"scores": scores, "classes": found.module.class_names or []}
    written = found.write("test.json", values | ({} if several else {"confusion": found.module.confusion.tolist()}))
    if several:
        table = found.table("test", "average precision")
        for key, value in scores.items():
            table.add_row(_name(key), f"{100 * value:.1f} %")
        found.show(table, "test")
    else:
        _show_accuracies(found, scores, found.module.confusion.sum(dim=1).tolist(), found.module.class_names or [])
    return [written]


def _name(key: str) -> str:
    """A score's name in a table."""
    return key.removeprefix("test/").removeprefix("accuracy/").removeprefix("ap/").replace("_", " ")


def _show_accuracies(found: TaskReport, scores: Mapping[str, float], counts: list[int], names: list[str]) -> None:
    """Prints accuracies, of all images and of each class, with their standard errors and those of guessing.

    Args:
        found: The finished fine-tuning.
        scores: The scores by name.
        counts: Number of test images of each class.
        names: The classes.
    """
    of_class = {f"test/accuracy/{name}": count for name, count in zip(names, counts, strict=True) if count}
    errors = {key: standard_error(scores[key], count) for key, count in of_class.items()}
    errors["test/macro_accuracy"] = math.hypot(*errors.values()) / max(1, len(errors))
    table = found.table("test", "accuracy", "images")
    for key, value in scores.items():
        count = of_class.get(key, sum(counts))
        error = errors[key] if key in errors else standard_error(value, count)
        table.add_row(escape(_name(key)), with_error(value, error), f"{count:,}")
    notes = ["± is one standard error over the test images."]
    found.show(table, "test", *notes, chance_level(dict(zip(names, counts, strict=True))))


def predict_data(module: Classify | Regress, data: CropData) -> dict[str, Any]:
    """Settings of the datamodule for predicting the classes, or the numbers, of other images."""
    return {"image_size": data.image_size, "channels": data.channels, "crop_ratio": data.crop_ratio}
