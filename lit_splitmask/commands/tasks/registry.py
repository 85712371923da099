"""The tasks of ``finetune``: module, datamodules, recipe, score and report of each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from lightning import Callback

from lit_splitmask import callbacks, datamodules, modules
from lit_splitmask.annotations.coco_files import ROBOFLOW
from lit_splitmask.commands import recipe_choice, recipes
from lit_splitmask.commands.request import TASK_LAYOUTS, Request
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.commands.tasks import classify, detect, regress, segment
from lit_splitmask.commands.tasks.report import TaskReport
from lit_splitmask.config_files import read_settings, settings_in
from lit_splitmask.datamodules.recognise import recognise
from lit_splitmask.errors import UserError
from lit_splitmask.images.folder_names import means_images, means_masks, split_of, split_of_masks
from lit_splitmask.images.glance import labels_per_class
from lit_splitmask.images.layout import LayoutName
from lit_splitmask.modules.base import TrainModule


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: Value of ``--task``.
        module: Class of the LightningModule.
        datamodules: Classes of the datamodules for this task alone.
        default_recipe: Chooses the recipe for the folder of a command if the user names none.
        monitors: Scores by which the best checkpoint can be chosen; the first is the usual one.
        weights: Name of the exported file.
        crops_follow_weights: Whether crops have the size that the weights were trained at, unless the user gives another.
        report: Evaluates the best weights and prints the scores; returns the files written.
        predict_data: Settings of the datamodule for predicting other images.
        writer: Makes the callback that writes predictions, from their path and whether it may get a number.
        predictions: Name of the file or folder of predictions.
        export_formats: The formats of ``export`` to recommend; none if these networks cannot be exported.
    """

    name: str
    module: type[TrainModule]
    datamodules: tuple[str, ...]
    default_recipe: Callable[[Request], recipe_choice.Choice]
    monitors: tuple[str, ...]
    weights: str
    crops_follow_weights: bool
    report: Callable[[TaskReport], list[str]]
    predict_data: Callable[[Any, Any], dict[str, Any]]
    writer: Callable[..., Callback]
    predictions: str
    export_formats: tuple[str, ...]

    @property
    def verb(self) -> str:
        """What the network does with other images, in a sentence."""
        return "predict the numbers of" if self.name == "regress" else self.name

    @property
    def usual_datamodule(self) -> str:
        """Class of the datamodule if the settings name none."""
        return self.datamodules[0] if self.datamodules else "ImageFolder"


def _folder_of(request: Request) -> Path:
    return Path(request.root or "").expanduser()


def classifier_recipe(pretraining: str, root: Path, request: Request) -> recipe_choice.Choice:
    """The recipe to fine-tune a classifier with, after a pre-training recipe, on a folder.

    Args:
        pretraining: Name of the recipe of the pre-training.
        root: The folder of images.
        request: The command; it says how to read the folder, and may take a share of the labels.
    """
    choice = recipe_choice.finetuning(pretraining)
    if request.datamodule not in (None, "ImageFolder") or not 0 < request.label_share <= 1:
        return choice  # other images are not counted; the datamodule refuses the share
    layout = request.layout if request.layout in get_args(LayoutName) else "auto"
    return recipe_choice.for_few_labels(
        choice, labels_per_class(root, layout=cast(LayoutName, layout), share=request.label_share)
    )


def _classification_recipe(request: Request) -> recipe_choice.Choice:
    root = _folder_of(request)
    found = datamodules.glance(root)
    pretraining = recipe_choice.choose(found.num_images, found.median_side, torch.cuda.is_available())
    if request.weights is None:  # few labels were measured after a pre-training only
        choice = recipe_choice.finetuning(pretraining.name)
    else:
        choice = classifier_recipe(pretraining.name, root, request)
    return replace(choice, num_images=found.num_images)


_FOR_CLASSES = tuple(
    f"--model.{name}"
    for name in ("mixup", "cutmix", "label_smoothing", "class_weights", "auxiliary", "probe_head", "num_classes")
)
"""Settings of a classifier that a regressor does not have."""


TASKS = {
    task.name: task
    for task in (
        Task(
            name="segment",
            module=modules.Segment,
            datamodules=("SegmentationFolder",),
            default_recipe=lambda request: recipe_choice.choose_segmentation(
                datamodules.glance(_folder_of(request)).num_images // 2,  # the other half are label maps
                torch.cuda.is_available(),
            ),
            monitors=("val/miou", "val/pixel_accuracy", "val/loss"),
            weights="segmenter.safetensors",
            crops_follow_weights=False,
            report=segment.report,
            predict_data=segment.predict_data,
            writer=callbacks.LabelMapWriter,
            predictions="predictions",
            export_formats=("onnx",),
        ),
        Task(
            name="detect",
            module=modules.Detect,
            datamodules=("CocoDetection",),
            default_recipe=lambda request: recipe_choice.choose_detection(
                datamodules.glance(_folder_of(request)).num_images, torch.cuda.is_available()
            ),
            monitors=("val/box/AP", "val/box/AP50", "val/mask/AP", "val/mask/AP50"),
            weights="detector.safetensors",
            crops_follow_weights=False,
            report=detect.report,
            predict_data=detect.predict_data,
            writer=callbacks.CocoResults,
            predictions="predictions.json",
            export_formats=(),
        ),
        Task(
            name="regress",
            module=modules.Regress,
            datamodules=("RegressionManifest",),
            default_recipe=regress.default_recipe,
            monitors=("val/mae", "val/rmse", "val/r2", "val/loss"),
            weights="regressor.safetensors",
            crops_follow_weights=True,
            report=regress.report,
            predict_data=classify.predict_data,
            writer=callbacks.NumberWriter,
            predictions="predictions.csv",
            export_formats=("timm", "onnx"),
        ),
        Task(
            name="classify",
            module=modules.Classify,
            datamodules=(),
            default_recipe=_classification_recipe,
            monitors=("val/accuracy", "val/macro_accuracy", "val/loss"),
            weights="classifier.safetensors",
            crops_follow_weights=True,
            report=classify.report,
            predict_data=classify.predict_data,
            writer=callbacks.PredictionWriter,
            predictions="predictions.csv",
            export_formats=("timm", "onnx"),
        ),
    )
}
"""The tasks by name."""


def choose_task(request: Request) -> Task:
    """The task of ``--task`` or ``--layout``; otherwise of the datamodule, of the settings to start from, or of the folder.

    Raises:
        UserError: There is no such task, the settings cannot be read, or the folder is annotated in a format that is not read.
    """
    if request.task is not None:
        if request.task not in TASKS:
            raise UserError(f"There is no task {request.task!r}: --task is one of {', '.join(sorted(TASKS))}.")
        return TASKS[request.task]
    if request.layout is not None:
        return TASKS[TASK_LAYOUTS.get(request.layout, "classify")]
    if request.predicts_numbers:
        return TASKS["regress"]
    datamodule = request.datamodule or _datamodule_of(_settings(request))
    if datamodule is not None:
        return task_for_datamodule(datamodule)
    if request.has("--data.annotations"):
        return TASKS["detect"]
    return TASKS["classify"] if request.root is None else task_for_folder(request.root)


def task_for_folder(root: str) -> Task:
    """The task that a folder is laid out for.

    Raises:
        UserError: The folder is annotated in a format that is not read, or can be read in two ways.
    """
    reading = recognise(root)
    if reading.task is None:
        annotated = root_for_finetuning(root)
        way = reading.way if annotated == root else f"pass --data.root {annotated}, which holds their annotations"
        raise UserError(f"{root} is read as {reading.meaning}, because {reading.because}. To train on them, {way}.")
    return TASKS[reading.task]


def task_for_datamodule(name: str) -> Task:
    """The task of a datamodule, by the name of its class."""
    return next((task for task in TASKS.values() if name in task.datamodules), TASKS["classify"])


def task_for_recipe(name: str) -> Task:
    """The task of a recipe."""
    return task_for_datamodule(_datamodule_of(recipes.read(name)) or "")


def check_numbers(task: Task, request: Request) -> None:
    """Checks that no setting and no built-in recipe for classes is given for numbers, and no recipe for numbers otherwise.

    Raises:
        UserError: One is.
    """
    wrong = [option for option in request.options if option.key.startswith(_FOR_CLASSES)]
    if task.name == "regress" and wrong:
        raise UserError(f"{wrong[0].name} is for classes, not for numbers: leave it out.")
    if request.recipe not in recipes.available():
        return
    intended = task_for_recipe(str(request.recipe))
    if intended is not task and "regress" in (task.name, intended.name):
        raise UserError(
            f"The recipe {request.recipe} is for --task {intended.name}, not for {task.name}: give another one (lit-splitmask "
            "recipes lists them), or none to have one chosen."
        )


def _settings(request: Request) -> dict[str, Any]:
    """The settings that name a datamodule: those of the run to resume, of a configuration file, or of the recipe."""
    if request.resume:
        return read_settings(RunFolder.existing(request.runs_dir, request.name).config)
    named = [settings for settings in map(settings_in, request.configs) if _datamodule_of(settings)]
    if named:
        return named[-1]
    return {} if request.recipe is None else recipes.read(request.recipe)


def _datamodule_of(settings: dict[str, Any]) -> str | None:
    """The class of the datamodule that settings name, without its package."""
    data = settings.get("data")
    class_path = data.get("class_path") if isinstance(data, dict) else data
    return class_path.rpartition(".")[2] if isinstance(class_path, str) else None


def task_of(module: object) -> Task:
    """The task of a module; ``classify`` for other classes."""
    return next((task for task in TASKS.values() if isinstance(module, task.module)), TASKS["classify"])


def root_for_finetuning(root: str) -> str:
    """The folder to fine-tune on after pre-training on ``root``: if label maps or boxes go with these images, that of both."""
    path = Path(root).expanduser()
    for parent in (path.parent, path.parent.parent):
        if not all(means_images(name) or split_of(name) for name in path.relative_to(parent).parts):
            break  # avoids walking through a large unrelated folder
        names = [entry.name for entry in parent.iterdir()]
        has_maps = any(means_masks(name) or split_of_masks(name) for name in names)
        if has_maps and datamodules.looks_like_segmentation(parent):
            return str(parent)
        if (has_maps or (path / ROBOFLOW).is_file()) and datamodules.looks_like_coco(parent):
            return str(parent)
    return root
