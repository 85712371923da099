"""What ``finetune`` can train for: the module, the recipe, the score and the report of each task."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback

from lit_splitmask import callbacks, datamodules, modules
from lit_splitmask.commands import classification, detection, recipes, segmentation
from lit_splitmask.commands.arguments import value_of
from lit_splitmask.commands.results import Report
from lit_splitmask.commands.runs import RunFolder
from lit_splitmask.errors import UserError
from lit_splitmask.modules.base import TrainModule


@dataclass(frozen=True)
class Task:
    """One thing to train for.

    Attributes:
        name: For ``--task``.
        module: The LightningModule.
        datamodules: Those whose images are for this task alone.
        recognises: Whether a folder is laid out for this task alone.
        default_recipe: For a folder, where the user names none.
        monitor: The score by which the best checkpoint is kept; more is better.
        weights: Name of the exported file.
        crops_follow_weights: Whether images have the size that the weights were trained at, unless the user says otherwise.
        report: Evaluates the best weights and says what was found.
        predict_data: Settings of the datamodule with which other images are predicted.
        writer: Writes predictions to a path, or to where it usually does.
    """

    name: str
    module: type[TrainModule]
    datamodules: tuple[str, ...]
    recognises: Callable[[Path], bool]
    default_recipe: Callable[[Path], recipes.Choice]
    monitor: str
    weights: str
    crops_follow_weights: bool
    report: Callable[[Report], list[str]]
    predict_data: Callable[[Any, Any], dict[str, Any]]
    writer: Callable[[str | None], Callback]


def _classification_recipe(root: Path) -> recipes.Choice:
    found = datamodules.glance(root)
    pretraining = recipes.choose(found.num_images, found.median_side, torch.cuda.is_available())
    return replace(recipes.finetuning(pretraining.name), num_images=found.num_images)


TASKS = {
    task.name: task
    for task in (
        Task(
            name="segment",
            module=modules.Segment,
            datamodules=("SegmentationFolder",),
            recognises=datamodules.looks_like_segmentation,
            default_recipe=lambda root: recipes.choose_segmentation(
                datamodules.glance(root).num_images // 2,  # the others are maps
                torch.cuda.is_available(),
            ),
            monitor="val/miou",
            weights="segmenter.safetensors",
            crops_follow_weights=False,
            report=segmentation.report,
            predict_data=segmentation.predict_data,
            writer=lambda path: callbacks.LabelMapWriter(path or "predictions"),
        ),
        Task(
            name="detect",
            module=modules.Detect,
            datamodules=("CocoDetection",),
            recognises=datamodules.looks_like_coco,
            default_recipe=lambda root: recipes.choose_detection(
                datamodules.glance(root).num_images, torch.cuda.is_available()
            ),
            monitor="val/box/AP",
            weights="detector.safetensors",
            crops_follow_weights=False,
            report=detection.report,
            predict_data=detection.predict_data,
            writer=lambda path: callbacks.CocoResults(path or "predictions.json"),
        ),
        Task(
            name="classify",
            module=modules.Classify,
            datamodules=(),
            recognises=lambda _: True,
            default_recipe=_classification_recipe,
            monitor="val/accuracy",
            weights="classifier.safetensors",
            crops_follow_weights=True,
            report=classification.report,
            predict_data=classification.predict_data,
            writer=lambda path: callbacks.PredictionWriter(path or "predictions.csv"),
        ),
    )
}
"""By name, in the order in which they look at a folder; ``classify`` takes what is left."""


def choose_task(arguments: list[str]) -> Task:
    """The task that ``--task`` names, or that the datamodule, the recipe, the run to resume or the folder is for.

    Raises:
        UserError: There is no such task.
    """
    name = value_of(arguments, "--task")
    if name is not None:
        if name not in TASKS:
            raise UserError(f"There is no task {name!r}: --task is one of {', '.join(sorted(TASKS))}.")
        return TASKS[name]
    data = _datamodule(arguments)
    if data is not None:
        return next((task for task in TASKS.values() if data in task.datamodules), TASKS["classify"])
    root = value_of(arguments, "--data.root")
    if root is None:
        return TASKS["classify"]
    return next(task for task in TASKS.values() if task.recognises(Path(root).expanduser()))


def _datamodule(arguments: list[str]) -> str | None:
    """The class of the datamodule, without its package, where the arguments say it."""
    for option in ("--data", "--data.class_path"):
        given = value_of(arguments, option)
        if given is not None:
            return given.rpartition(".")[2]
    settings: dict[str, Any] = {}
    recipe, config = value_of(arguments, "--recipe"), value_of(arguments, "--config") or value_of(arguments, "-c")
    if value_of(arguments, "--resume") not in (None, "false", "False"):
        folder = RunFolder.existing(value_of(arguments, "--runs_dir") or "runs", value_of(arguments, "--name"))
        settings = yaml.safe_load(folder.config.read_text())
    elif config is not None and Path(config).is_file():
        loaded = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
        settings = loaded if isinstance(loaded, dict) else {}
    if recipe is not None and not _class_path(settings):
        settings = recipes.read(recipe)
    class_path = _class_path(settings)
    return class_path.rpartition(".")[2] if class_path else None


def _class_path(settings: dict[str, Any]) -> str | None:
    data = settings.get("data")
    return data.get("class_path") if isinstance(data, dict) else data if isinstance(data, str) else None


def without_task(arguments: list[str]) -> list[str]:
    """The arguments without ``--task``, which the parser of a run's settings does not know."""
    result: list[str] = []
    skip = False
    for argument in arguments:
        if not (skip or argument == "--task" or argument.startswith("--task=")):
            result.append(argument)
        skip = argument == "--task"
    return result


def task_of(module: object) -> Task:
    """The task that a module is for; ``classify`` for modules of other origin."""
    return next((task for task in TASKS.values() if isinstance(module, task.module)), TASKS["classify"])


def root_for_finetuning(root: str) -> str:
    """The folder to fine-tune on after a pre-training on some images: where they belong to label maps or boxes, that of both."""
    path = Path(root).expanduser()
    if path.parent.name == "images" and datamodules.looks_like_segmentation(path.parent.parent):
        return str(path.parent.parent)
    return str(path.parent) if datamodules.looks_like_coco(path.parent) else root
