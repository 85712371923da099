"""What ``finetune`` says of a segmenter."""

import math
from typing import Any

from lit_splitmask.callbacks import SegmentationPictures
from lit_splitmask.commands.results import Report
from lit_splitmask.datamodules import SegmentationFolder
from lit_splitmask.modules import Segment
from lit_splitmask.modules.label_scores import class_iou


def report(found: Report) -> list[str]:
    """Evaluates the segmenter on test, or on val where there is none; prints the scores and draws predictions.

    Returns:
        The files written.
    """
    splits = found.data.source.splits
    split = next((name for name in ("test", "val") if name in splits), None)
    if split is None:
        return []
    module, loader = found.module, found.data.eval_loader(splits[split])
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


def _print(found: Report, split: str, values: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    chosen = "the checkpoint that was best on val"
    table = Table(f"on {split} images", "IoU", title=f"{found.folder.path.name}: {chosen}")
    for name, value in values["iou"].items():
        table.add_row(name, "no pixels" if value is None else f"{100 * value:.1f} %")
    table.add_section()
    table.add_row("mean (mIoU)", f"{100 * values['scores']['test/miou']:.1f} %")
    table.add_row("pixel accuracy", f"{100 * values['scores']['test/pixel_accuracy']:.1f} %")
    Console().print(table)
    if split == "val":
        print("There is no test split: val has chosen the checkpoint, so these numbers are a little too good.")


def predict_data(module: Segment, data: SegmentationFolder) -> dict[str, Any]:
    """Settings of the datamodule with which the label maps of other images are predicted."""
    settings = {"image_size": data.image_size, "channels": data.channels, "short_side": data.short_side}
    return {**settings, "void": module.void, "num_classes": module.num_classes}
