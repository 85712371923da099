"""Writes weights during training, to fine-tune from each."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from lit_splitmask.callbacks.export import ExportWeights
from lit_splitmask.errors import UserError


class ExportAlong(Callback):
    """Writes the network after parts of the training, as ``backbone-at-<share>.safetensors`` in the folder of the run.

    The learning rate follows the schedule of the whole run, so it has not yet fallen at the earlier parts. A resumed run rewrites
    the weights of steps that it repeats.

    Args:
        shares: The parts, as shares of the run's steps; 1 is its end.

    Raises:
        UserError: There is no part, or one is not above 0 and up to 1.

    Example:
        >>> from lit_splitmask.callbacks import ExportAlong
        >>> ExportAlong([0.1, 1.0]).file_of(0.1)
        'backbone-at-0.1.safetensors'
    """

    def __init__(self, shares: Sequence[float]) -> None:
        wrong = [share for share in shares if not 0 < share <= 1]
        if wrong or not shares:
            problem = f"holds {wrong[0]:g}" if wrong else "is empty"
            raise UserError(f"shares {problem}: give shares of the training's steps, above 0 and up to 1.")
        self.shares = list(shares)

    @staticmethod
    def file_of(share: float) -> str:
        """Name of the file after a part."""
        return f"backbone-at-{share:g}.safetensors"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero or trainer.max_steps < 1:
            return
        for share in self.shares:
            if math.ceil(share * trainer.max_steps) == trainer.global_step:
                path = Path(trainer.default_root_dir) / self.file_of(share)
                ExportWeights(str(path)).export(pl_module, trainer.global_step)
