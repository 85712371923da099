"""What ``finetune`` reports about a detector."""

from typing import Any

from lit_splitmask.callbacks import DetectionPictures
from lit_splitmask.commands.tasks.report import TaskReport
from lit_splitmask.datamodules import CocoDetection
from lit_splitmask.modules import Detect
from lit_splitmask.modules.average_precision import NAMES


def report(found: TaskReport) -> list[str]:
    """Evaluates the detector on test, or on val if there is no test split; prints AP and draws predictions.

    Returns:
        The files written.
    """
    split, module = found.split, found.module
    if split is None:
        return []
    loader = found.data.eval_loader(found.data.source.splits[split])
    scores = found.trainer.validate(module, dataloaders=loader, verbose=False)[0]
    if not found.trainer.is_global_zero:
        return []
    assert isinstance(module, Detect)
    values = {name.removeprefix("val/"): value for name, value in scores.items()}
    written = found.write(f"{split}.json", {"split": split, "scores": values, "classes": module.class_names})
    _print(found, split, values)
    pictures = DetectionPictures(str(found.folder.path))
    pictures.draw(found.data, module, split)
    return [written, str(pictures.path)]


def _print(found: TaskReport, split: str, values: dict[str, float]) -> None:
    kinds = [kind for kind in ("box", "mask") if f"{kind}/AP" in values]
    table = found.table(split, *(f"{kind} AP" for kind in kinds))
    names = {name.partition("/")[2] for name in values if name.partition("/")[0] in kinds}
    overall = [name for name in NAMES.values() if name in names]
    classes = sorted(names.difference(overall))
    for name in [*overall, *classes]:
        cells = [values.get(f"{kind}/{name}", float("nan")) for kind in kinds]
        table.add_row(
            name.removeprefix("AP/"), *(f"{100 * value:.1f}" if value >= 0 else "no objects" for value in cells)
        )
    found.show(table, split)


def predict_data(module: Detect, data: CocoDetection) -> dict[str, Any]:
    """Settings of the datamodule for detecting objects in other images."""
    settings = {"image_size": data.image_size, "channels": data.channels, "max_size": data.max_size}
    return {**settings, "masks": module.rcnn.with_masks}
