"""What ``pretrain`` and ``finetune`` share: the settings to start from, the folder of the run, and the training."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_splitmask.callbacks import StopOnSignal
from lit_splitmask.commands import recipe_choice, recipes
from lit_splitmask.commands.processes import Terminated, was_started_again
from lit_splitmask.commands.request import Option, Request
from lit_splitmask.commands.run_cli import RunCLI, is_process_zero, trainer_defaults
from lit_splitmask.commands.run_folder import RunFolder, keep_metrics, new_run, resumed_run, unfinished_runs
from lit_splitmask.config_files import read_settings
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import as_typed
from lit_splitmask.shell import copyable, say


def starting_settings(request: Request, choice: recipe_choice.Choice | None) -> dict[str, Any]:
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
            say(f"Recipe {choice.name}: {reason}.")
    settings["trainer"] = {**trainer_defaults(), **settings.get("trainer", {})}
    return settings


def check_recipe_of_shards(request: Request) -> None:
    """Checks that the images from which a recipe would be chosen are files.

    Raises:
        UserError: They are in shards.
    """
    if request.datamodule == "Shards":
        raise UserError(
            "No recipe is chosen for shards: give one with --recipe NAME (lit-splitmask recipes lists them; lit-splitmask plan "
            "names the one for the folder that the shards were written from)."
        )


def after_requeue(request: Request) -> Request:
    """The request, with ``--resume`` if SLURM or torchrun started the same command again and its run exists."""
    if not was_started_again() or request.name is None or request.resume:
        return request
    if not RunFolder(Path(request.runs_dir) / request.name).config.is_file():
        return request
    return Request(request.command, (*request.given, Option("--resume", "true")))


def with_run(request: Request) -> Request:
    """The request, with the name of the run to resume if it names none and there is one that can be.

    Raises:
        UserError: No run can be resumed, or several can.
    """
    if not request.resume or request.name is not None:
        return request
    command = request.command
    found = [folder for folder in unfinished_runs(request.runs_dir) if _is_of(folder, command)]
    if len(found) != 1:
        names = ", ".join(folder.path.name for folder in found)
        problem = f"{len(found)} can be resumed: {names}" if found else "none is unfinished"
        raise UserError(
            f"--resume without --name continues the run of {command} in {request.runs_dir} that has not finished, but {problem}. "
            f"Give --name NAME, or leave out --resume to start a run."
        )
    if is_process_zero():
        say(f"Resuming {found[0].path}.")
    return Request(command, (*request.given, Option("--name", found[0].path.name)))


def _is_of(folder: RunFolder, command: str) -> bool:
    """Whether a run is of this command: only that of a pre-training has an objective."""
    has_objective = "objective" in (read_settings(folder.config).get("model") or {})
    return has_objective == (command == "pretrain")


@contextmanager
def run_folder(cli: RunCLI, command: str) -> Iterator[RunFolder]:
    """Locks the folder of a new run, or of the run to resume.

    Raises:
        UserError: The new run already exists, the run to resume does not, or another process is running it.
    """
    config = cli.config
    if config.resume:
        with resumed_run(config.runs_dir, config.name) as folder, _says_what_is_kept(cli, folder):
            yield folder
        return
    settings = config.data.init_args
    images = as_typed(settings.get("manifest") or settings.root).stem
    with new_run(config.runs_dir, config.name, f"{command}-{images}") as folder, _says_what_is_kept(cli, folder):
        yield folder


@contextmanager
def _says_what_is_kept(cli: RunCLI, folder: RunFolder) -> Iterator[None]:
    """Adds to Ctrl-C, and to a SIGTERM before the first step or after the last, what is saved and how to continue.

    Raises:
        UserError: The folder was deleted or moved while the run wrote to it, whatever that made fail.
    """
    try:
        yield
    except Exception as error:
        if not (is_process_zero() and folder.is_gone()):
            raise
        raise UserError(_gone(cli, folder)) from error
    except Terminated as stop:
        stop.kept = _kept(cli, folder)
        raise
    except (KeyboardInterrupt, SystemExit) as stop:
        if not is_interrupt(stop):
            if folder.is_gone():
                _newest(cli, folder)  # that which SIGTERM wrote
            raise
        raise KeyboardInterrupt(_kept(cli, folder) or "") from None


def is_interrupt(stop: BaseException) -> bool:
    """Whether it is Ctrl-C, which Lightning turns into ``exit(1)``."""
    return isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt)


def _kept(cli: RunCLI, folder: RunFolder) -> str | None:
    """What is saved of a run that ends early, and the command that continues it; None if nothing is."""
    if checkpoint := _newest(cli, folder):
        return f"{checkpoint} is kept. To continue:\n{copyable(_command_that_goes_on(cli, folder))}"
    if cli.config.resume:
        return f"no checkpoint had been written. To start again:\n{copyable(_command_that_goes_on(cli, folder))}"
    return None


def _newest(cli: RunCLI, folder: RunFolder) -> Path | None:
    """The newest checkpoint; the settings, without which it cannot be resumed, are written again if the folder was deleted."""
    checkpoint = folder.newest_checkpoint()
    if checkpoint is not None and is_process_zero() and folder.is_gone():
        cli.save_resolved(folder)
    return checkpoint


def _gone(cli: RunCLI, folder: RunFolder) -> str:
    """What is lost of a run whose folder is gone, and what to do."""
    problem = f"The folder {folder.path} is gone: it was deleted or moved while the run wrote to it"
    go_on = copyable(_command_that_goes_on(cli, folder))
    if checkpoint := _newest(cli, folder):
        return (
            f"{problem}. Its earlier files are lost, but {checkpoint} was written since. To continue from it:\n{go_on}"
        )
    return (
        f"{problem}, and the settings, metrics and checkpoints in it are lost. Start the run again; or, if you can put the "
        f"folder back and it holds a checkpoint, continue with:\n{go_on}"
    )


def _command_that_goes_on(cli: RunCLI, folder: RunFolder) -> list[str]:
    words = ["lit-splitmask", cli.command, "--name", folder.path.name, "--resume"]
    if cli.config.runs_dir != "runs":
        words[2:2] = ["--runs_dir", cli.config.runs_dir]
    return words


def fit(cli: RunCLI, folder: RunFolder, trainer: Trainer, module: LightningModule, data: ImageData) -> None:
    """Trains; a resumed run continues from its newest complete checkpoint, or from the beginning if there is none.

    Raises:
        UserError: The images or the settings cannot be used, or training failed.
        SystemExit: SIGTERM stopped the training.
    """
    checkpoint = folder.newest_checkpoint() if cli.config.resume else None
    if is_process_zero():
        data.prepare_data()  # errors in the images appear before anything is written
        if cli.config.resume:
            if checkpoint is None:
                say(f"The run {folder.path} has no complete checkpoint, so it starts from the beginning.")
            keep_metrics(folder, checkpoint)
        else:
            cli.save_resolved(folder)
        cli.log_settings(trainer)
    with ends_with_143(trainer, _command_that_goes_on(cli, folder)):
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)


@contextmanager
def ends_with_143(trainer: Trainer, command: Sequence[str]) -> Iterator[None]:
    """Gives a training that SIGTERM stopped the matching exit code, and prints the command that continues it.

    Args:
        trainer: Its :class:`StopOnSignal` knows whether a signal came.
        command: The words of the command, or what to do instead as a single one; the path of the checkpoint is added to one that
            ends in ``--ckpt_path``.
    """
    stops = [callback for callback in trainer.callbacks if isinstance(callback, StopOnSignal)]  # type: ignore[attr-defined]
    try:
        yield
    except SIGTERMException:
        if not any(stop.stopped for stop in stops):
            raise
    if not any(stop.stopped for stop in stops):
        return
    if trainer.is_global_zero:
        saved = next((stop.saved for stop in stops if stop.saved is not None), None)
        kept = f", after writing {saved}" if saved is not None else ""
        words = [*command, str(saved)] if command[-1] == "--ckpt_path" else command
        go_on = copyable(words) if len(words) > 1 else f"  {words[0]}"
        say(f"stopped by SIGTERM at step {trainer.global_step:,}{kept}. To continue:\n{go_on}", sys.stderr)
    raise SystemExit(128 + signal.SIGTERM)
