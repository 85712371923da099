"""Stops training that no longer improves the network."""

from lightning import Callback, LightningModule, Trainer

from lit_splitmask.callbacks.selection import OverfitAwareCheckpoint
from lit_splitmask.errors import UserError


class OverfitAwareEarlyStopping(Callback):
    """Stops training when the rule of the trainer's :class:`OverfitAwareCheckpoint` says so.

    Example:
        >>> from lightning import Trainer
        >>> quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(callbacks=[OverfitAwareCheckpoint("runs/mine"), OverfitAwareEarlyStopping()], **quiet)
        >>> [type(callback).__name__ for callback in trainer.callbacks]
        ['OverfitAwareEarlyStopping', 'OverfitAwareCheckpoint']
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the checkpoint callback.

        Raises:
            UserError: There is none.
        """
        found = [callback for callback in trainer.callbacks if isinstance(callback, OverfitAwareCheckpoint)]  # type: ignore[attr-defined]
        if not found:
            raise UserError(
                "OverfitAwareEarlyStopping needs an OverfitAwareCheckpoint among the trainer's callbacks: add one."
            )
        for callback in found:
            callback.stops = True
