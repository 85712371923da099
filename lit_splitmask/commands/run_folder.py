"""The folder of a run: its name, its files, and the checks before it is written or resumed."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file
from lit_splitmask.pickles import load_tensors, reason

INHERITED = "LIT_SPLITMASK_RUN_FOLDER"
"""The environment variable from which other processes of a run learn its folder."""


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
        """The checkpoint to resume from."""
        return self.checkpoints / "last.ckpt"

    @classmethod
    def new(cls, runs_dir: str, name: str | None, default: str) -> "RunFolder":
        """A folder for a new run; an existing run is never overwritten.

        Process zero chooses; the processes that Lightning starts for the other devices inherit its choice.

        Args:
            runs_dir: The folder of all runs.
            name: Name of the run; None for a free name.
            default: The name, with a number if it is taken, of a run without a name.

        Raises:
            UserError: A run of this name exists, or an externally started process has no name for it.
        """
        base = Path(runs_dir)
        if getattr(rank_zero_only, "rank", 0):
            if INHERITED in os.environ:
                return cls(Path(os.environ[INHERITED]))
            if name is None:
                raise UserError(
                    "A run on externally started processes (torchrun, SLURM) needs a name: give --name NAME."
                )
            return cls(base / name)
        folder = cls._unused(base, name, default)
        os.environ[INHERITED] = str(folder.path)
        return folder

    def claim(self) -> None:
        """Makes the folder.

        Raises:
            UserError: A run that was started at the same time has made it.
        """
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise UserError(
                f"Another run has just started in {self.path}: run this command again, or choose another --name."
            ) from None

    @classmethod
    def _unused(cls, base: Path, name: str | None, default: str) -> "RunFolder":
        if name is None:
            names = (_numbered(default, number) for number in itertools.count(1))
            return cls(next(base / name for name in names if not (base / name).exists()))
        folder = cls(base / name)
        if folder.path.exists():
            raise UserError(
                f"The run {folder.path} already exists: choose another --name, continue it with --resume, or delete it."
            )
        return folder

    @classmethod
    def existing(cls, runs_dir: str, name: str | None) -> "RunFolder":
        """The folder of a run to resume.

        Raises:
            UserError: No name is given, there is no such run, or it has no intact checkpoint.
        """
        if name is None:
            raise UserError("--resume needs the name of the run: add --name NAME.")
        folder = cls(Path(runs_dir) / name)
        if not folder.config.is_file():
            raise UserError(
                f"There is no run {folder.path} to resume: check --name, or leave out --resume to start it."
            )
        if not folder.last.is_file():
            raise UserError(
                f"The run {folder.path} has no checkpoint yet ({folder.last} is missing), so it cannot be resumed: "
                "delete the folder and start the run again."
            )
        check_checkpoint(folder.last)
        return folder


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def check_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a Lightning checkpoint without running any code in it.

    Raises:
        UserError: The file is missing, damaged, or not a Lightning checkpoint.
    """
    if not is_file(path):
        raise UserError(f"There is no checkpoint {path}: check the path.")
    try:
        checkpoint = load_tensors(path)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, … for damaged files
        raise UserError(
            f"The checkpoint {path} is damaged or truncated ({reason(error)}): use another checkpoint."
        ) from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a Lightning checkpoint: it has no state_dict.")
    return checkpoint


def keep_metrics(folder: RunFolder) -> None:
    """Renames the metrics.csv of a run to be resumed, which the CSV logger would delete."""
    metrics = folder.path / "metrics.csv"
    if metrics.exists():
        step = check_checkpoint(folder.last)["global_step"]
        renamed, number = folder.path / f"metrics-until-step-{step}.csv", 2
        while renamed.exists():  # resumed from the same step before
            renamed, number = folder.path / f"metrics-until-step-{step}-{number}.csv", number + 1
        metrics.rename(renamed)
