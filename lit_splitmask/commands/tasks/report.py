"""What the reports of all tasks share."""

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
from lit_splitmask.shell import say


@dataclass(frozen=True)
class TaskReport:
    """A finished fine-tuning, to be evaluated.

    Attributes:
        folder: The folder of the run.
        trainer: The trainer.
        module: The module with the best weights.
        data: The images.
        checkpoint: The checkpoint of these weights.
    """

    folder: RunFolder
    trainer: Trainer
    module: TrainModule
    data: ImageData
    checkpoint: Path

    @property
    def split(self) -> str | None:
        """The split to evaluate on: test, or val if there is no test split; None if there is neither."""
        return next((name for name in ("test", "val") if name in self.data.source.splits), None)

    def table(self, split: str, *columns: str) -> Table:
        """A table of scores."""
        return Table(f"on {split} images", *columns)

    def show(self, table: Table, split: str, *notes: str) -> None:
        """Prints scores under a title, with notes and a caution about those on val."""
        which = "the best checkpoint on val" if "val" in self.data.source.splits else "the last checkpoint"
        console = Console(markup=False, highlight=False)
        console.print(
            f"{self.folder.path.name}: {which}", soft_wrap=True
        )  # as a title it would be broken to the table's width
        console.print(table)
        for note in notes:
            say(note)
        if split == "val":
            say("There is no test split. The checkpoint was chosen on val, so these scores are slightly optimistic.")

    def write(self, name: str, values: dict[str, Any]) -> str:
        """Writes JSON into the run's folder; returns its path."""
        path = self.folder.path / name
        write_json(path, {**values, "checkpoint": str(self.checkpoint)})
        return str(path)
