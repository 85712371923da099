"""``lit-splitmask finetune``: trains for a task, from pre-trained weights or from scratch, and evaluates the result."""

from pathlib import Path

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_splitmask import callbacks
from lit_splitmask.callbacks.early_stopping import better
from lit_splitmask.callbacks.whole_checkpoints import read_checkpoint
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.commands import recipe_choice, recipes
from lit_splitmask.commands.export.command import command_to_export
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import RunCLI, last_checkpoint, quiet
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.commands.tasks.registry import Task, check_numbers, choose_task
from lit_splitmask.commands.tasks.report import TaskReport
from lit_splitmask.commands.training import (
    after_requeue,
    check_recipe_of_shards,
    fit,
    run_folder,
    starting_settings,
    with_run,
)
from lit_splitmask.config_files import public_path
from lit_splitmask.datamodules import ImageFolder, Manifest
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.shell import copyable, say

SEVERAL_LABELS = ("val/map", "val/loss")
"""Scores of a classifier of images that may have several labels."""


def finetune(request: Request) -> int:
    """Trains, exports the best weights, evaluates them, and writes ``predict.yaml``.

    Raises:
        UserError: The images, the weights or the settings cannot be used, or training failed.
    """
    quiet()
    request = with_run(after_requeue(request))
    task = choose_task(request)
    check_numbers(task, request)
    chosen = (request.root is not None or task.name == "regress") and not request.names_settings
    if chosen:
        check_recipe_of_shards(request)
    choice = task.default_recipe(request) if chosen else None
    if choice is not None and request.auxiliary is not None:
        choice = recipe_choice.joint(choice, request.auxiliary)
    settings = starting_settings(request, choice)
    if request.weights is not None:
        info = load_weights(request.weights).info
        if choice is not None or _shape_is_built_in(request):
            settings.get("model", {}).pop("backbone", None)  # the shape is that of the weights
        if "timm" in info:
            recipe_choice.fit_to_weights(
                settings,
                info["timm"],
                task.usual_datamodule,
                size=task.crops_follow_weights,
                window=info.get("pixel_window"),
            )
    cli = RunCLI(task.module, request.settings(weights_option="--model.weights"), settings)
    with run_folder(cli, "finetune") as folder:
        best = _best_checkpoint(task, cli, folder)
        stop = callbacks.StopOnSignal(str(folder.last))
        extra = [callbacks.RunProgress(), stop, best, last_checkpoint(folder), callbacks.EstimateTime()]
        if cli.config.early_stopping is not None:
            extra.append(callbacks.ScoreEarlyStopping(str(best.monitor), cli.config.early_stopping))
        span = cli.config.moving_average
        if span:
            extra.append(callbacks.MovingAverage(span))
        trainer, module, data = cli.build(folder, extra, without=() if span is None else (callbacks.MovingAverage,))
        fit(cli, folder, trainer, module, data)
        _report(task, folder, trainer, module, data, Path(best.best_model_path or folder.last))
    return 0


def _best_checkpoint(task: Task, cli: RunCLI, folder: RunFolder) -> ModelCheckpoint:
    """Keeps the epoch with the best score on val.

    Raises:
        UserError: ``--monitor`` is not a score of the task.
    """
    splits = getattr(cli.config.data.init_args, "splits", None)
    monitors = SEVERAL_LABELS if getattr(splits, "labels", None) == "several" else task.monitors
    monitor = cli.config.monitor or monitors[0]
    if monitor not in monitors:
        raise UserError(f"There is no score {monitor!r} to {task.name}: --monitor is one of {', '.join(monitors)}.")
    return ModelCheckpoint(
        str(folder.checkpoints), filename="best", monitor=monitor, mode=better(monitor), enable_version_counter=False
    )


def _shape_is_built_in(request: Request) -> bool:
    """Whether a named recipe of this project gives the shape of the network, and the user nothing of it."""
    own = any(option.name.startswith("--model.backbone") for option in request.given)
    return request.recipe in recipes.available() and not request.configs and not own


def _report(
    task: Task, folder: RunFolder, trainer: Trainer, module: LightningModule, data: ImageData, checkpoint: Path
) -> None:
    """Exports the best weights, evaluates them, and prints the command that predicts with them."""
    assert isinstance(module, TrainModule)
    best = read_checkpoint(checkpoint)
    module.load_state_dict(best["state_dict"])
    weights = folder.path / task.weights
    if trainer.is_global_zero:
        callbacks.ExportWeights(str(weights)).export(module, best["global_step"])
    reported = task.report(TaskReport(folder, trainer, module, data, checkpoint))
    if not trainer.is_global_zero:
        return
    predict = folder.path / "predict.yaml"
    images = ImageFolder if isinstance(data, Manifest) else type(data)  # a list names the images that it was trained on
    settings = {
        "model": {"class_path": task.module.__name__, "init_args": {"weights": str(weights), "keep_head": True}},
        "data": {"class_path": public_path(images), "init_args": task.predict_data(module, data)},
    }
    write_atomically(predict, yaml.safe_dump(settings, sort_keys=False).encode())
    files = [
        weights,
        *folder.path.glob("metrics.csv"),
        *map(Path, reported),
    ]  # no metrics.csv with trainer.logger=false
    command = ["lit-splitmask", "predict", "--config", str(predict), "--data.root", "DIR"]
    say(
        f"Wrote {', '.join(file.name for file in files)} in {folder.path}. To {task.verb} other images:\n{copyable(command)}"
    )
    if task.export_formats:
        say(f"To use it elsewhere:\n{copyable(command_to_export(weights, task.export_formats))}")
    say(f"To view this run as a page:\n{copyable(['lit-splitmask', 'report', str(folder.path)])}")
