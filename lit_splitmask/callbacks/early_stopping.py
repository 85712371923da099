"""Stops training that no longer improves the network."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

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


class ScoreEarlyStopping(EarlyStopping):
    """Stops fine-tuning when a score has not improved in a number of validations.

    Lightning's callback, with what a resumed run needs: one that had stopped does not continue unless its patience was raised.

    Args:
        monitor: Name of the score; a loss, ``mae`` or ``rmse`` is better when it is lower, any other score when it is higher.
        patience: Number of validations without an improvement, at least 1.

    Raises:
        UserError: ``patience`` is less than 1.

    Example:
        >>> ScoreEarlyStopping("val/loss", patience=5).mode
        'min'
    """

    def __init__(self, monitor: str, patience: int) -> None:
        if patience < 1:
            raise UserError(f"early_stopping is {patience}; it must be a number of validations, at least 1.")
        super().__init__(
            monitor, mode=better(monitor), patience=patience, check_finite=False, check_on_train_epoch_end=False
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks that there are validations, and ends a run that had stopped before.

        Raises:
            UserError: There are none.
        """
        if not trainer.val_dataloaders:
            raise UserError(
                f"early_stopping needs validation images, to measure {self.monitor}, but there are none: add a val split, or set "
                "data.splits.val_share above 0 before the images are first split."
            )
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores all but the patience, which is that of this run."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says that training has stopped early, if it has."""
        if self.wait_count >= self.patience:
            pl_module.print(
                f"Stopped at step {trainer.global_step:,}: {self.monitor} has not improved in {self.wait_count} validations; its "
                f"best is {float(self.best_score):.4g}."
            )


def better(monitor: str) -> str:
    """Which values of a score are better, as Lightning says it: ``min`` for a loss or an error, ``max`` for any other."""
    return "min" if monitor.endswith(("loss", "/mae", "/rmse")) else "max"
