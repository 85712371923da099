"""What ``finetune`` reports about a classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.markup import escape

from lit_splitmask.commands.chance import (
    chance_level,
    chance_of_labels,
    interval,
    interval_of_mean,
    interval_text,
    percent,
)
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
        _show_precisions(found, scores, found.module.class_names or [])
    else:
        _show_accuracies(found, scores, found.module.confusion.sum(dim=1).tolist(), found.module.class_names or [])
    return [written]


def _name(key: str) -> str:
    """A score's name in a table."""
    return key.removeprefix("test/").removeprefix("accuracy/").removeprefix("ap/").replace("_", " ")


def _show_accuracies(found: TaskReport, scores: Mapping[str, float], counts: list[int], names: list[str]) -> None:
    """Prints accuracies, of all images and of each class, with their intervals and those of guessing.

    Args:
        found: The finished fine-tuning.
        scores: The scores by name.
        counts: Number of test images of each class.
        names: The classes.
    """
    of_class = {f"test/accuracy/{name}": count for name, count in zip(names, counts, strict=True) if count}
    macro = interval_of_mean([scores[key] for key in of_class], list(of_class.values()))
    table = found.table("test", "accuracy", "95 % interval", "images")
    for key, value in scores.items():
        count = of_class.get(key, sum(counts))
        ends = macro if key == "test/macro_accuracy" else interval(value, count)
        table.add_row(escape(_name(key)), percent(value), interval_text(ends), f"{count:,}")
    note = "The intervals are over the test images, for this one network."
    found.show(table, "test", note, chance_level(dict(zip(names, counts, strict=True))))


def _show_precisions(found: TaskReport, scores: Mapping[str, float], names: Sequence[str]) -> None:
    """Prints average precisions, of all labels and of each, and those of guessing."""
    samples = found.data.source.splits["test"].labelled()
    assert samples.meanings is not None
    with_label = np.bincount(samples.labels, minlength=len(samples.meanings)) @ samples.meanings
    counts = dict(zip(names, with_label.tolist(), strict=True))
    table = found.table("test", "average precision", "images")
    for key, value in scores.items():
        count = counts.get(key.removeprefix("test/ap/"), len(samples))
        table.add_row(escape(_name(key)), percent(value), f"{count:,}")
    found.show(table, "test", chance_of_labels(counts, len(samples)))


def predict_data(module: Classify | Regress, data: CropData) -> dict[str, Any]:
    """Settings of the datamodule for predicting the classes, or the numbers, of other images."""
    return {"image_size": data.image_size, "channels": data.channels, "crop_ratio": data.crop_ratio}
