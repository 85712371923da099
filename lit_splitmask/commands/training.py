"""What ``pretrain`` and ``finetune`` share: the settings to start from, the folder of the run, and the training."""

import shutil
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from lit_splitmask.commands import recipes
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import RunCLI, is_process_zero, trainer_defaults
from lit_splitmask.commands.run_folder import RunFolder, keep_metrics
from lit_splitmask.config_files import read_settings
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError


def starting_settings(request: Request, choice: recipes.Choice | None) -> dict[str, Any]:
    """The settings of lowest priority: those of the run to resume, of ``--recipe``, or of the recipe chosen for the images.

    Raises:
        UserError: There is no such recipe, it is for another command, or the run cannot be resumed.
    """
    if request.resume:
        return read_settings(RunFolder.existing(request.runs_dir, request.name).config)
    settings: dict[str, Any] = {}
    if request.recipe is not None:
        settings = recipes.read(request.recipe)
        recipes.check_command(request.recipe, settings, request.command)
    elif choice is not None:
        settings, reason = choice.settings()
        if is_process_zero() and not request.has("--print_config"):
            print(f"Recipe {choice.name}: {reason}.")
    settings["trainer"] = {**trainer_defaults(), **settings.get("trainer", {})}
    return settings


def run_folder(cli: RunCLI, command: str) -> RunFolder:
    """The folder of a new run, or of the run to resume.

    Raises:
        UserError: The new run already exists, or the run to resume does not.
    """
    config = cli.config
    if config.resume:
        return RunFolder.existing(config.runs_dir, config.name)
    settings = config.data.init_args
    images = Path(settings.get("manifest") or settings.root).resolve().stem
    return RunFolder.new(config.runs_dir, config.name, f"{command}-{images}")


def fit(cli: RunCLI, folder: RunFolder, trainer: Trainer, module: LightningModule, data: ImageData) -> None:
    """Trains; a resumed run continues from its last checkpoint. A failed run without a checkpoint leaves no folder.

    Raises:
        UserError: The images or the settings cannot be used, or training failed.
    """
    if is_process_zero():
        data.prepare_data()  # errors in the images appear before anything is written
        if cli.config.resume:
            keep_metrics(folder)
        else:
            folder.claim()
            cli.save_resolved(folder)
    checkpoint = str(folder.last) if cli.config.resume else None
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except UserError:
        if not folder.last.exists():
            shutil.rmtree(folder.path, ignore_errors=True)  # frees the name
        raise
