"""A run's folder: its name, its files, and whether it may be written."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_splitmask.errors import UserError

INHERITED = "LIT_SPLITMASK_RUN_FOLDER"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @classmethod
    def new(cls, runs_dir: str, name: str | None, default: str) -> "RunFolder":
        """A folder for a new run; a run that exists is never written over.

        Process zero chooses; those that Lightning starts for the other devices inherit its choice.
        """
        base = Path(runs_dir)
        if getattr(rank_zero_only, "rank", 0):
            if INHERITED in os.environ:
                return cls(Path(os.environ[INHERITED]))
            if name is None:
                raise UserError("A run on processes that were started from outside needs a name: give --name NAME.")
            return cls(base / name)
        folder = cls._unused(base, name, default)
        os.environ[INHERITED] = str(folder.path)
        return folder

    def claim(self) -> None:
        """Makes the folder, once.

        Raises:
            UserError: It was made meanwhile, by a run that was started at the same time.
        """
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise UserError(
                f"Another run has just started in {self.path}: start this one again, or choose another --name."
            ) from None

    @classmethod
    def _unused(cls, base: Path, name: str | None, default: str) -> "RunFolder":
        if name is None:
            taken = [n for n in range(1, 10_000) if not (base / _numbered(default, n)).exists()]
            return cls(base / _numbered(default, taken[0]))
        folder = cls(base / name)
        if folder.path.exists():
            raise UserError(
                f"The run {folder.path} exists already: choose another --name, go on with it by --resume, or delete it."
            )
        return folder

    @classmethod
    def existing(cls, runs_dir: str, name: str | None) -> "RunFolder":
        """The folder of a run that is to be resumed, checked to be resumable."""
        if name is None:
            raise UserError("--resume needs the name of the run: give --name NAME too.")
        folder = cls(Path(runs_dir) / name)
        if not folder.config.is_file():
            raise UserError(f"There is no run {folder.path} to resume: check --name, or start it without --resume.")
        if not folder.last.is_file():
            raise UserError(
                f"The run {folder.path} has no checkpoint yet ({folder.last} is missing), so there is nothing to resume: "
                "delete the folder and start the run again."
            )
        check_checkpoint(folder.last)
        return folder


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def check_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a Lightning checkpoint safely; raises a :class:`UserError` if it is missing, truncated or not one."""
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}: check the path.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, … for damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"The checkpoint {path} is damaged or truncated ({reason}): use another one.") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a Lightning checkpoint: it has no state_dict.")
    return checkpoint


def keep_metrics(folder: RunFolder) -> None:
    """Moves a run's metrics.csv aside before it is resumed, since the CSV logger would delete it."""
    metrics = folder.path / "metrics.csv"
    if metrics.exists():
        step = check_checkpoint(folder.last)["global_step"]
        kept, number = folder.path / f"metrics-until-step-{step}.csv", 2
        while kept.exists():  # resumed from the same step before
            kept, number = folder.path / f"metrics-until-step-{step}-{number}.csv", number + 1
        metrics.rename(kept)
