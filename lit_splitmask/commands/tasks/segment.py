"""What ``finetune`` reports about a segmenter."""

import math
from typing import Any

from rich.markup import escape

from lit_splitmask.callbacks import SegmentationPictures
from lit_splitmask.commands.chance import chance_of_maps, interval_text, percent
from lit_splitmask.commands.tasks.report import TaskReport
from lit_splitmask.comparison import CONFIDENCE
from lit_splitmask.datamodules import SegmentationFolder
from lit_splitmask.modules import Segment
from lit_splitmask.modules.label_scores import bootstrap, class_iou

FEW_IMAGES = 20
"""Fewer images than these make a bootstrap's intervals too narrow."""


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
        "intervals": bootstrap(module.image_counts, CONFIDENCE),
        "images": len(module.image_counts),
        "classes": names,
        "confusion": module.confusion.tolist(),
    }
    written = found.write(f"{split}.json", values)
    _print(found, split, values)
    picture = found.folder.path / "predictions.png"
    SegmentationPictures(str(picture)).draw(module, loader.dataset)
    return [written, str(picture)]


def _print(found: TaskReport, split: str, values: dict[str, Any]) -> None:
    table, ends = found.table(split, "IoU", "95 % interval"), values["intervals"]
    of_classes = [None] * len(values["iou"]) if ends is None else ends["iou"]
    for (name, value), found_ends in zip(values["iou"].items(), of_classes, strict=True):
        table.add_row(escape(name), "no pixels" if value is None else percent(value), _text(found_ends))
    table.add_section()
    for name, key in (("mean (mIoU)", "miou"), ("pixel accuracy", "pixel_accuracy")):
        table.add_row(name, percent(values["scores"][f"test/{key}"]), _text(ends and ends[key]))
    pixels = dict(zip(values["classes"], (sum(row) for row in values["confusion"]), strict=True))
    found.show(table, split, note_on_intervals(values["images"]), chance_of_maps(pixels))


def note_on_intervals(num_images: int) -> str:
    """A sentence on what the intervals are over, and whether they can be trusted."""
    if num_images < 2:
        return "There is no interval over a single image."
    caution = f" With fewer than {FEW_IMAGES} images they are too narrow." if num_images < FEW_IMAGES else ""
    return f"The intervals are over the {num_images:,} images (bootstrap), for this one network.{caution}"


def _text(ends: list[float] | None) -> str:
    """An interval in a table."""
    return "—" if ends is None else interval_text((ends[0], ends[1]))


def predict_data(module: Segment, data: SegmentationFolder) -> dict[str, Any]:
    """Settings of the datamodule for predicting label maps of other images."""
    settings = {"image_size": data.image_size, "channels": data.channels, "short_side": data.short_side}
    settings |= {"void": module.void, "num_classes": module.num_classes}
    given = {"values": module.values, "colours": data.options.colours}
    return settings | {name: value for name, value in given.items() if value is not None}
