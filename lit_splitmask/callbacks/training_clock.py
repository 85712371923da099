"""Measures how long training takes, over interruptions."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer


class TrainingClock(Callback):
    """Seconds from the start to the end of training, kept in checkpoints so that a resumed run counts its first part.

    Attributes:
        seconds: training time so far.
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        return self._before + (time.monotonic() - self._started if self._started is not None else 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before, self._started = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = float(state_dict["seconds"])
