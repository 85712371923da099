"""One progress bar for the whole run: time left, steps, images per second, losses."""

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lit_splitmask.contract import training_data
from lit_splitmask.shell import say, wrapped
from lit_splitmask.units import duration

_BAR = 12
"""Characters of the bar."""


class RunProgress(ProgressBar):
    """A bar over all steps of the run on a terminal, and occasional lines of text in other output.

    A narrow terminal shows the time left, the bar, the steps, and as many of the losses as fit.

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
            text = wrapped(" ".join(map(str, args)))
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self._enabled:
            say(" ".join(map(str, args)), sys.stderr)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._last_line = time.monotonic()
        self._first_step = trainer.global_step
        console = Console(stderr=True)
        if self._enabled and trainer.is_global_zero and console.is_terminal:
            left, status = (TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("left", "status"))
            self._progress = Progress(left, BarColumn(_BAR), status, console=console)
            total = _total_steps(trainer)
            self._progress.add_task("", total=total, completed=self._first_step, left="", status="")
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self._progress is not None:
            left, parts = self._left(trainer), self._parts(trainer)
            room = self._progress.console.width - len(left) - _BAR - 2  # a space on each side of the bar
            self._progress.update(
                self._progress.task_ids[0], completed=trainer.global_step, left=left, status=fitting(parts, room)
            )
        elif self._enabled and trainer.is_global_zero and now - self._last_line >= self.seconds_between_lines:
            self._last_line = now
            print("  ".join(filter(None, [self._left(trainer), *self._parts(trainer)])), file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _rate(self, trainer: Trainer) -> float:
        """Steps per second since training began here."""
        return (trainer.global_step - self._first_step) / max(1e-9, time.monotonic() - self._started)

    def _left(self, trainer: Trainer) -> str:
        """The time left; empty in an endless run."""
        total = _total_steps(trainer)
        if total is None:
            return ""
        return f"{duration((total - trainer.global_step) / max(1e-9, self._rate(trainer)))} left"

    def _parts(self, trainer: Trainer) -> list[str]:
        """What else is shown, the most important first."""
        total, rate = _total_steps(trainer), self._rate(trainer)
        steps = f"step {trainer.global_step:,}" + ("" if total is None else f"/{total:,}")
        images = rate * (training_data(getattr(trainer, "datamodule", None)).images_per_step or 0)
        speed = f"{images:,.0f} images/s" if images else f"{rate:.2f} steps/s"
        values = [
            f"{k.removeprefix('train/')} {float(v):.3f}"
            for k, v in trainer.progress_bar_metrics.items()
            if k != "v_num"
        ]
        return [steps, speed, *values]


def fitting(parts: Sequence[str], room: int) -> str:
    """The first parts that fit into a number of characters, two spaces apart; of the first as much as fits.

    Example:
        >>> fitting(["step 3/9", "12 images/s", "loss 0.512"], room=24)
        'step 3/9  12 images/s'
    """
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > room:
            break
        line += f"  {part}"
    return line[: max(0, room)]


def _total_steps(trainer: Trainer) -> int | None:
    """Optimizer steps of the run; None if it is endless, or if the loader has no length."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if math.isfinite(steps) and steps >= 0 else None
