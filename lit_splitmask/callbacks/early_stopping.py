"""Stops training that no longer improves the network."""

from lightning import Callback, LightningModule, Trainer

from lit_splitmask.callbacks.selection import OverfitAwareCheckpoint
from lit_splitmask.errors import UserError


class OverfitAwareEarlyStopping(Callback):
    """Stops training when the rule of the trainer's :class:`OverfitAwareCheckpoint` says so."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the checkpoint callback.

        Raises:
            UserError: There is none.
        """
        found = [callback for callback in trainer.callbacks if isinstance(callback, OverfitAwareCheckpoint)]  # type: ignore[attr-defined]
        if not found:
            raise UserError("OverfitAwareEarlyStopping needs an OverfitAwareCheckpoint among the trainer's callbacks.")
        for callback in found:
            callback.stops = True
