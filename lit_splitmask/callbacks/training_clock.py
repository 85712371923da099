"""Measures how long training takes, across interruptions."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer


class TrainingClock(Callback):
    """Measures the seconds from the start to the end of training; checkpoints hold them, so a resumed run counts its first part.

    Example:
        >>> clock = TrainingClock()
        >>> clock.load_state_dict({"seconds": 90.0})  # as from a checkpoint
        >>> clock.seconds
        90.0
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return self._before + (time.monotonic() - self._started if self._started is not None else 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before, self._started = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = float(state_dict["seconds"])
