"""What ``finetune`` reports about a segmenter."""

import math
from typing import Any

from lit_splitmask.callbacks import SegmentationPictures
from lit_splitmask.commands.chance import always_largest
from lit_splitmask.commands.tasks.report import TaskReport
from lit_splitmask.datamodules import SegmentationFolder
from lit_splitmask.modules import Segment
from lit_splitmask.modules.label_scores import class_iou


def report(found: TaskReport) -> list[str]:
    """Evaluates the segmenter on test, or on val if there is no test split; prints the scores and draws predictions.

    Returns:
        The files written.
    """
    split, module = found.split, found.module
    if split is None:
        return []
    loader = found.data.eval_loader(found.data.source.splits[split])
    scores = found.trainer.test(module, dataloaders=loader, verbose=False)[0]
    if not found.trainer.is_global_zero:
        return []
    assert isinstance(module, Segment)
    names, iou = module.class_names or [], class_iou(module.confusion).tolist()
    values = {
        "split": split,
        "scores": {key: scores[key] for key in ("test/miou", "test/pixel_accuracy")},
        "iou": {name: value if math.isfinite(value) else None for name, value in zip(names, iou, strict=True)},
        "classes": names,
        "confusion": module.confusion.tolist(),
    }
    written = found.write(f"{split}.json", values)
    _print(found, split, values)
    picture = found.folder.path / "predictions.png"
    SegmentationPictures(str(picture)).draw(module, loader.dataset)
    return [written, str(picture)]


def _print(found: TaskReport, split: str, values: dict[str, Any]) -> None:
    table = found.table(split, "IoU")
    for name, value in values["iou"].items():
        table.add_row(name, "no pixels" if value is None else f"{100 * value:.1f} %")
    table.add_section()
    table.add_row("mean (mIoU)", f"{100 * values['scores']['test/miou']:.1f} %")
    table.add_row("pixel accuracy", f"{100 * values['scores']['test/pixel_accuracy']:.1f} %")
    pixels = [sum(row) for row in values["confusion"]]
    chance = always_largest(dict(zip(values["classes"], pixels, strict=True)))
    found.show(table, split, f"Chance: a pixel accuracy of {chance}.")


def predict_data(module: Segment, data: SegmentationFolder) -> dict[str, Any]:
    """Settings of the datamodule for predicting label maps of other images."""
    settings = {"image_size": data.image_size, "channels": data.channels, "short_side": data.short_side}
    settings |= {"void": module.void, "num_classes": module.num_classes}
    given = {"values": module.values, "colours": data.options.colours}
    return settings | {name: value for name, value in given.items() if value is not None}
