"""The output of ``predict``: its name is this process's own before predicting, and it appears under it when it is complete."""

import os
import shutil
from pathlib import Path
from typing import Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lit_splitmask.errors import UserError
from lit_splitmask.files import as_typed, cannot_write, partial_name
from lit_splitmask.reserved import Reserved, is_taken, reserve


class PredictionOutput(BasePredictionWriter):
    """What the writers of predictions share: the name of the output, and the end of the work.

    Args:
        path: The file or folder; it must not exist yet.
        write_interval: When predictions are written.
        numbered: Whether a path that is taken gets a number, instead of being refused.

    Attributes:
        path: The file or folder, with its number once predicting has begun.
        partial: Where to write a folder before it is complete.

    Example:
        >>> PredictionOutput("runs/mine/maps", "batch", numbered=False).path.name
        'maps'
    """

    kind = "file"

    def __init__(self, path: str, write_interval: Literal["batch", "epoch"], *, numbered: bool) -> None:
        super().__init__(write_interval=write_interval)
        named = Path(path).name not in ("", "..")  # the current folder and its parents are not
        self.path = self._asked = Path(path) if named else as_typed(path)
        self.partial = partial_name(self.path)
        self.numbered = numbered
        self._reserved: Reserved | None = None
        self._written = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reserves the name, before predicting, so that nothing is overwritten and no other process takes it.

        Raises:
            UserError: The path exists or another process is writing it, or the folder cannot be written to.
        """
        if stage != "predict":
            return
        found, problem = self._asked, ""
        if trainer.is_global_zero:
            try:
                found = self._reserve()
            except UserError as error:
                problem = str(error)
        found, self.partial, problem = trainer.strategy.broadcast((found, partial_name(found), problem))
        if problem:
            raise UserError(problem)
        self.path = found

    def _reserve(self) -> Path:
        """The path, or the first with a number that is free."""
        path, number = self._asked, 1
        while (reserved := self._reserved_if_free(path)) is None:
            if not self.numbered:
                problem = "already exists: move it away" if self._exists(path) else "is being written: wait for that"
                name = "FILE" if self.kind == "file" else "DIR"
                raise UserError(f"{path} {problem}, or choose another {self.kind} with --predictions.path {name}.")
            number += 1
            path = self._asked.with_name(f"{self._asked.stem}-{number}{self._asked.suffix}")
        self._reserved = reserved
        if number > 1:
            why = "holds earlier predictions, which are kept" if self._exists(self._asked) else "is being written"
            print(f"{self._asked} {why}: these go to {path}.", flush=True)
        return path

    def _reserved_if_free(self, path: Path) -> Reserved | None:
        reserved = reserve(path)
        if reserved is not None and self._exists(path):
            reserved.release()
            return None
        return reserved

    def _exists(self, path: Path) -> bool:
        return any(map(os.path.lexists if self.kind == "file" else is_taken, self.files(path)))

    def files(self, path: Path) -> list[Path]:
        """All that is written for a path."""
        return [path]

    def name_folder(self) -> None:
        """Gives the folder, which is complete now, its name.

        Raises:
            UserError: It cannot get it.
        """
        try:
            self.partial.mkdir(exist_ok=True)
            if self.path.is_dir():
                self.path.rmdir()  # fails if it is not empty any more
            os.rename(self.partial, self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def say_at_the_end(self, message: str) -> None:
        """Prints what was written once the progress bar is gone."""
        self._written = message

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says what was written."""
        self._release()
        if self._written:
            pl_module.print(self._written)
            self._written = ""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes what was written so far."""
        shutil.rmtree(self.partial, ignore_errors=True)
        if self._reserved is not None and not self._written:
            for path in self.files(self.path):
                if path.is_file():
                    path.unlink()
        self._release()

    def _release(self) -> None:
        if self._reserved is not None:
            self._reserved.release()
            self._reserved = None
