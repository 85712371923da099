"""What the report of every task begins and ends with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Trainer
from rich.console import Console
from rich.table import Table

from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.files import write_json
from lit_splitmask.modules.base import TrainModule


@dataclass(frozen=True)
class TaskReport:
    """What a report is made of.

    Attributes:
        folder: Of the run.
        trainer: That trained.
        module: With the best weights.
        data: The images.
        checkpoint: Where the weights are from.
    """

    folder: RunFolder
    trainer: Trainer
    module: TrainModule
    data: ImageData
    checkpoint: Path

    @property
    def split(self) -> str | None:
        """The images to evaluate on: test, or val where there is no test."""
        return next((name for name in ("test", "val") if name in self.data.source.splits), None)

    def table(self, split: str, *columns: str) -> Table:
        """A table of scores."""
        title = f"{self.folder.path.name}: the checkpoint that was best on val"
        return Table(f"on {split} images", *columns, title=title)

    def show(self, table: Table, split: str) -> None:
        """Prints scores, and what to think of those on val."""
        Console().print(table)
        if split == "val":
            print("There is no test split: val has chosen the checkpoint, so these numbers are a little too good.")

    def write(self, name: str, values: dict[str, Any]) -> str:
        """Writes JSON into the run's folder; returns its path."""
        path = self.folder.path / name
        write_json(path, {**values, "checkpoint": str(self.checkpoint)})
        return str(path)
