"""One progress bar for the whole run: steps, images per second, losses, time left."""

import math
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lit_splitmask.contract import training_data
from lit_splitmask.units import duration


class RunProgress(ProgressBar):
    """A bar over all steps of the run on a terminal, and occasional lines of text in other output.

    Args:
        seconds_between_lines: Least seconds between two lines in output that is not a terminal.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[RunProgress(seconds_between_lines=60.0)], accelerator="cpu", logger=False)
        >>> type(trainer.progress_bar_callback).__name__
        'RunProgress'
    """

    def __init__(self, seconds_between_lines: float = 30.0) -> None:
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self._enabled = True
        self._progress: Progress | None = None
        self._started = self._last_line = 0.0
        self._first_step = 0

    @property
    def is_enabled(self) -> bool:
        return self._enabled

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress.console.print(*args, highlight=False)
        elif self._enabled:
            print(*args, file=sys.stderr, flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._last_line = time.monotonic()
        self._first_step = trainer.global_step
        console = Console(stderr=True)
        if self._enabled and trainer.is_global_zero and console.is_terminal:
            self._progress = Progress(BarColumn(), TextColumn("{task.fields[status]}"), console=console)
            self._progress.add_task("", total=_total_steps(trainer), completed=self._first_step, status="")
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0], completed=trainer.global_step, status=self._status(trainer)
            )
        elif self._enabled and trainer.is_global_zero and now - self._last_line >= self.seconds_between_lines:
            self._last_line = now
            print(self._status(trainer), file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _status(self, trainer: Trainer) -> str:
        done = trainer.global_step - self._first_step
        rate = done / max(1e-9, time.monotonic() - self._started)
        total = _total_steps(trainer)
        steps = f"step {trainer.global_step:,}" + ("" if total is None else f"/{total:,}")
        left = [] if total is None else [f"{duration((total - trainer.global_step) / max(1e-9, rate))} left"]
        images = rate * (training_data(getattr(trainer, "datamodule", None)).images_per_step or 0)
        values = [
            f"{k.removeprefix('train/')} {float(v):.3f}"
            for k, v in trainer.progress_bar_metrics.items()
            if k != "v_num"
        ]
        speed = f"{images:,.0f} images/s" if images else f"{rate:.2f} steps/s"
        return "  ".join([steps, speed, *values, *left])


def _total_steps(trainer: Trainer) -> int | None:
    """Optimizer steps of the run; None if it is endless, or if the loader has no length."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if math.isfinite(steps) and steps >= 0 else None
