"""The moving average of the weights in fine-tuning: what is validated, kept, tested and exported."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.modules.downstream import DownstreamModule


class MovingAverage(WeightAveraging):
    """Validates and keeps the moving average of the weights instead of the weights of the last step.

    Until as many steps are done as the average spans, it is the plain mean of the weights after each step; from then on a step
    counts 1 / span. Training continues from the weights of the last step, which checkpoints hold too (``current_model_state``); a
    checkpoint's ``state_dict`` is the average, so that testing and exporting use it.

    Args:
        span: What the average spans, as a share of the run's steps.

    Raises:
        UserError: ``span`` is outside (0, 1].

    Example:
        >>> MovingAverage(span=0.1).newest_share(step=3, total_steps=1000)  # the fourth step
        0.25
        >>> MovingAverage(span=0.1).newest_share(step=900, total_steps=1000)
        0.01
    """

    def __init__(self, span: float = 0.1) -> None:
        if not 0 < span <= 1:
            raise UserError(
                f"MovingAverage's span={span} must be a share of the steps in (0, 1]; the usual value is 0.1."
            )
        super().__init__(use_buffers=False, multi_avg_fn=self._move)
        self.span = span
        self._made = False
        self._total_steps = 0

    def newest_share(self, step: int, total_steps: int) -> float:
        """The weight of the newest weights in the average.

        Args:
            step: Number of steps that the average already holds.
            total_steps: Steps of the run.

        Returns:
            A share in (0, 1].
        """
        return max(1 / (step + 1), 1 / max(1.0, self.span * total_steps))

    def _move(self, average: Any, current: Any, step: Tensor | int) -> None:
        torch._foreach_lerp_(list(average), list(current), self.newest_share(int(step), self._total_steps))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the module; Lightning's callback would copy it here, before it has a network.

        Raises:
            UserError: The module is not one for fine-tuning.
        """
        if stage == "fit" and not isinstance(pl_module, DownstreamModule):
            raise UserError(
                f"MovingAverage is for fine-tuning, not for {type(pl_module).__name__}, whose checkpoints are chosen by signals "
                "of the current weights: remove it from trainer.callbacks."
            )
        self._made = False

    def _make(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copies the module, once it has a network."""
        if not self._made:
            super().setup(trainer, pl_module, "fit")
            self._made = True

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._make(trainer, pl_module)
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._make(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(pl_module.device)  # a resumed one was made before the module was moved
        self._total_steps = int(trainer.estimated_stepping_batches)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            super().on_validation_epoch_end(trainer, pl_module)
