"""Writes class predictions as CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lit_splitmask.atomic import write_atomically
from lit_splitmask.distributed import gather_objects
from lit_splitmask.errors import UserError


class PredictionWriter(BasePredictionWriter):
    """One row an image: its path, the predicted class, and every class's probability.

    Args:
        path: the CSV file.
    """

    def __init__(self, path: str = "predictions.csv") -> None:
        super().__init__(write_interval="epoch")
        self.path = Path(path)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses to write over a file, before anything is predicted."""
        if stage == "predict" and self.path.exists():
            raise UserError(
                f"{self.path} exists already: move it away, or give another file by --predictions.path FILE."
            )

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        names: list[str] = pl_module.class_names  # type: ignore[assignment]
        paths: list[str] = trainer.datamodule.predict_paths  # type: ignore[attr-defined]
        found = [
            (index, row)
            for batch in predictions
            for index, row in zip(batch["index"].tolist(), batch["probabilities"].tolist(), strict=True)
        ]
        rows = sorted(gather_objects(found))
        if not trainer.is_global_zero:
            return
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["path", "predicted", *names])
        for index, row in rows:
            best = max(range(len(row)), key=row.__getitem__)
            writer.writerow([paths[index], names[best], *(f"{p:.6f}" for p in row)])
        write_atomically(self.path, table.getvalue().encode())
        pl_module.print(f"Wrote {self.path}.")
