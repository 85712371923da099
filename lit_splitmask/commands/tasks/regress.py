"""What ``finetune`` reports about a regressor, and the recipe that it starts from."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_splitmask.annotations.manifest_rows import read_manifest
from lit_splitmask.commands.plots import draw_predicted
from lit_splitmask.commands.recipe_choice import Choice
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.tasks.report import TaskReport
from lit_splitmask.datamodules import RegressionManifest
from lit_splitmask.distributed import gather_objects
from lit_splitmask.errors import UserError
from lit_splitmask.modules import Regress


def default_recipe(request: Request) -> Choice:
    """The recipe for the images of a list.

    Raises:
        UserError: The command names no list, or it cannot be read.
    """
    if request.manifest is None:
        given = f", but {request.root} is given alone" if request.root else ""
        raise UserError(
            f"Regression reads a CSV file with a column of numbers{given}: give --data.manifest FILE.csv --data.target COLUMN "
            "(--data.root DIR is the folder that its paths start from, if that is not the file's own)."
        )
    rows = read_manifest(Path(request.manifest).expanduser(), use_labels=False, use_splits=False)
    if torch.cuda.is_available():
        return Choice("regress", "ViT-S/16 at 224 px", len(rows.files))
    return Choice("regress_cpu", "no GPU: a small network at 48 px that two CPU cores can train", len(rows.files))


def report(found: TaskReport) -> list[str]:
    """Evaluates the regressor on test, or on val if there is no test split; prints the errors and draws the predictions.

    Returns:
        The files written.
    """
    split, module, data = found.split, found.module, found.data
    if split is None:
        return []
    samples = data.source.splits[split]
    scores = found.trainer.test(module, dataloaders=data.eval_loader(samples), verbose=False)[0]
    assert isinstance(module, Regress)
    assert isinstance(data, RegressionManifest)
    pairs = np.array(gather_objects(module.test_pairs))
    if not found.trainer.is_global_zero:
        return []
    median = float(np.median(data.train_targets))
    values = {
        "split": split,
        "target": data.target,
        "images": len(samples),
        "scores": {name: score if math.isfinite(score) else None for name, score in scores.items()},
        "standard_error": standard_error(scores["test/mae"], scores["test/rmse"], len(samples)),
        "median": median,
        "mae_of_median": float(np.abs(samples.targets(np.arange(len(samples))) - median).mean()),
    }
    written = found.write(f"{split}.json", values)
    table = found.table(split, data.target)
    table.add_row("mean absolute error (MAE)", f"{scores['test/mae']:.4g} ± {values['standard_error']:.2g}")
    table.add_row("root mean squared error (RMSE)", f"{scores['test/rmse']:.4g}")
    table.add_row("R²", f"{scores['test/r2']:.3f}" if math.isfinite(scores["test/r2"]) else "one image has none")
    notes = f"± is one standard error over the {len(samples):,} {split} images. {baseline(values)}"
    found.show(table, split, notes)
    picture = found.folder.path / "predicted.png"
    draw_predicted(pairs[:, 0], pairs[:, 1], data.target, picture)
    return [written, str(picture)]


def standard_error(mae: float, rmse: float, num_images: int) -> float:
    """Standard error of a mean absolute error: that of the mean of the errors' sizes, whose mean square is the RMSE's."""
    return math.sqrt(max(0.0, rmse**2 - mae**2) / max(1, num_images - 1))


def baseline(report: Mapping[str, Any]) -> str:
    """A sentence on what is reached without looking at the images."""
    mae, median = report["mae_of_median"], report["median"]
    return f"Always predicting the median of the training images, {median:.4g}, has an MAE of {mae:.4g}."
