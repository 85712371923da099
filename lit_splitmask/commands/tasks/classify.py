"""What ``finetune`` reports about a classifier."""

from typing import Any

from lit_splitmask.commands.tasks.report import TaskReport
from lit_splitmask.datamodules.crop_data import CropData
from lit_splitmask.modules import Classify


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
    table = found.table("test", "average precision" if several else "accuracy")
    for key, value in scores.items():
        table.add_row(
            key.removeprefix("test/").removeprefix("accuracy/").removeprefix("ap/").replace("_", " "),
            f"{100 * value:.1f} %",
        )
    found.show(table, "test")
    return [written]


def predict_data(module: Classify, data: CropData) -> dict[str, Any]:
    """Settings of the datamodule for classifying other images."""
    return {"image_size": data.image_size, "channels": data.channels, "crop_ratio": data.crop_ratio}
