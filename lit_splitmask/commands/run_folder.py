"""The folder of a run: its name, its files, and the checks before it is written or resumed."""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_splitmask.callbacks.whole_checkpoints import newest_whole, read_checkpoint
from lit_splitmask.commands.processes import Terminated, launched
from lit_splitmask.errors import UserError
from lit_splitmask.files import cannot_write, lock, remove_abandoned

INHERITED = "LIT_SPLITMASK_RUN_FOLDER"
"""The environment variable from which other processes of a run learn its folder."""

LOCK = ".lock"
"""File of a run's folder that its process holds locked."""

STARTED = {"config.yaml", "metrics.csv", "hparams.yaml", "tensorboard", "checkpoints", "words.png", "report.html", LOCK}
"""What a run, or a report of it, may have written before its first checkpoint."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of Lightning's checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint that is written after every epoch."""
        return self.checkpoints / "last.ckpt"

    def is_gone(self) -> bool:
        """Whether the folder was deleted or moved while its process held it; it may have been made again by a checkpoint."""
        return not (self.path / LOCK).exists() and not self.config.exists()

    def newest_checkpoint(self) -> Path | None:
        """The checkpoint to continue from: the last, or the newest whole one if that is damaged; None if there is none."""
        # SLURM's requeueing writes hpc_ckpt_1.ckpt, … into the run's folder.
        return newest_whole(
            self.last, [*sorted(self.checkpoints.glob("*.ckpt")), *sorted(self.path.glob("hpc_*.ckpt"))]
        )

    @classmethod
    def existing(cls, runs_dir: str, name: str | None) -> "RunFolder":
        """The folder of a run to resume.

        Raises:
            UserError: No name is given, or there is no such run.
        """
        if name is None:
            raise UserError("--resume needs the name of the run: add --name NAME.")
        folder = cls(Path(runs_dir) / name)
        if not folder.config.is_file():
            raise UserError(
                f"There is no run {folder.path} to resume: check --name, or leave out --resume to start it."
            )
        return folder


WEIGHTS = ("backbone", "classifier", "regressor", "segmenter", "detector")
"""Names of the files that a run writes when it has trained."""


def unfinished_runs(runs_dir: str) -> list[RunFolder]:
    """The runs that have begun, have written no weights, and are not running; by name."""
    folders = [RunFolder(config.parent) for config in sorted(Path(runs_dir).glob("*/config.yaml"))]
    begun = [one for one in folders if not any((one.path / f"{name}.safetensors").exists() for name in WEIGHTS)]
    return [folder for folder in begun if not _is_running(folder)]


def _is_running(folder: RunFolder) -> bool:
    if not (folder.path / LOCK).exists():
        return False
    held = _lock(folder)
    if held is not None:
        held.close()
    return held is None


@contextmanager
def new_run(runs_dir: str, name: str | None, default: str) -> Iterator[RunFolder]:
    """Makes and locks the folder of a new run; an existing run is never overwritten.

    Process zero chooses; the processes that Lightning starts for the other devices inherit its choice. A run that fails before
    its first checkpoint leaves no folder. One that was killed before then is started again under the same name.

    Args:
        runs_dir: The folder of all runs.
        name: Name of the run; None for a free name.
        default: The name, with a number if it is taken, of a run without a name.

    Raises:
        UserError: A run of this name exists, its name is not UTF-8, the folder cannot be made, or externally started processes
            have no name for it.
    """
    base, started = Path(runs_dir), launched()
    _check_utf8(base / (name or default))
    if name is None and started is not None and started.per_node * started.nodes > 1:
        raise UserError("A run whose processes torchrun or SLURM starts needs a name: give --name NAME.")
    if getattr(rank_zero_only, "rank", 0):
        yield _inherited(base, name)
        return
    is_first = not base.exists()
    folder, held = _claim(base, name, default)
    os.environ[INHERITED] = str(folder.path)
    try:
        with _released(folder, held):
            try:
                yield folder
            except BaseException as error:
                is_kept = any(folder.checkpoints.glob("*.ckpt"))
                if not is_kept and (isinstance(error, UserError | Terminated) or not folder.config.exists()):
                    shutil.rmtree(folder.path, ignore_errors=True)  # frees the name
                raise
    finally:
        if is_first:
            with suppress(OSError):  # unless it holds anything
                base.rmdir()


@contextmanager
def resumed_run(runs_dir: str, name: str | None) -> Iterator[RunFolder]:
    """Locks the folder of a run to resume.

    Raises:
        UserError: No name is given, there is no such run, or another process is running it.
    """
    folder = RunFolder.existing(runs_dir, name)
    if getattr(rank_zero_only, "rank", 0):
        yield folder
        return
    held = _lock(folder)
    if held is None:
        raise UserError(f"The run {folder.path} is already running in another process: wait for it, or stop it.")
    with _released(folder, held):
        for path in (folder.path, folder.checkpoints):
            remove_abandoned(path)
        yield folder


def _check_utf8(path: Path) -> None:
    """Checks that libraries, which write UTF-8, can write the name of a folder."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise UserError(
            f"The name of the run's folder, {shown}, is not UTF-8, and not every library can write to it: choose another --name "
            "or --runs_dir."
        ) from None


def _inherited(base: Path, name: str | None) -> RunFolder:
    """The folder that process zero chose."""
    if INHERITED in os.environ:
        return RunFolder(Path(os.environ[INHERITED]))
    if name is None:
        raise UserError("A run on externally started processes needs a name: give --name NAME.")
    return RunFolder(base / name)


def _claim(base: Path, name: str | None, default: str) -> tuple[RunFolder, BinaryIO]:
    """Makes and locks the folder of the given name, or the first that is free."""
    names = [name] if name is not None else (_numbered(default, number) for number in itertools.count(1))
    for each in names:
        folder = RunFolder(base / each)
        is_new = _make(folder.path)
        if not is_new and not (name is not None and _is_unfinished_start(folder.path)):
            continue
        held = _lock(folder)
        if held is not None:
            if not is_new:
                _empty(folder.path)
            return folder, held
        if name is not None:
            raise UserError(f"Another run has just started in {folder.path}: choose another --name.")
    raise UserError(
        f"The run {base / str(name)} already exists: choose another --name, continue it with --resume, or delete it."
    )


def _make(path: Path) -> bool:
    """Makes a folder; False if it exists."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise cannot_write(path, error) from error
    return True


def _is_unfinished_start(path: Path) -> bool:
    """Whether a folder holds no more than a run that was killed before its first checkpoint."""
    if not path.is_dir() or any(path.rglob("*.ckpt")):
        return False
    return {entry.name for entry in path.iterdir() if not entry.name.endswith(".tmp")} <= STARTED


def _empty(path: Path) -> None:
    """Removes everything in a folder except the lock."""
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _lock(folder: RunFolder) -> BinaryIO | None:
    try:
        return lock(folder.path / LOCK)
    except OSError as error:
        raise cannot_write(folder.path, error) from error


@contextmanager
def _released(folder: RunFolder, held: BinaryIO) -> Iterator[None]:
    """Removes the lock at the end."""
    try:
        yield
    finally:
        (folder.path / LOCK).unlink(missing_ok=True)
        held.close()


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def keep_metrics(folder: RunFolder, checkpoint: Path | None) -> None:
    """Renames the metrics.csv of a run to be resumed, which the CSV logger would delete.

    Args:
        folder: The run.
        checkpoint: What it continues from; None for the beginning.
    """
    metrics = folder.path / "metrics.csv"
    if metrics.exists():
        step = 0 if checkpoint is None else read_checkpoint(checkpoint)["global_step"]
        renamed, number = folder.path / f"metrics-until-step-{step}.csv", 2
        while renamed.exists():  # resumed from the same step before
            renamed, number = folder.path / f"metrics-until-step-{step}-{number}.csv", number + 1
        metrics.rename(renamed)
