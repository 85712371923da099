"""Ends a run cleanly when the system asks for it, and lets SLURM requeue it."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_splitmask.callbacks.whole_checkpoints import write_whole_checkpoints
from lit_splitmask.distributed import sum_over_processes


class StopOnSignal(Callback):
    """On SIGTERM, writes a checkpoint and stops, before the next step and on all processes in the same one.

    ``trainer.fit`` then raises Lightning's ``SIGTERMException``, a ``SystemExit``. Lightning alone raises it too, but writes no
    checkpoint, and the process ends with exit code 0. While a validation or a checkpoint is under way, it is finished first.

    Where Lightning requeues SLURM jobs (``SLURMEnvironment``, SIGUSR1), it does so before the next step as well, not in the
    middle of one, so that its checkpoint is that of a whole step on all processes.

    Args:
        path: The checkpoint to write, such as that of :class:`OverfitAwareCheckpoint`, ``last.ckpt``; None for
            ``stopped.ckpt`` in the folder of the logs.
        saves: Whether to write one.

    Attributes:
        stopped: Whether a signal stopped the training.
        saved: The checkpoint that was written then; None if there is none.

    Example:
        >>> from lightning import Trainer
        >>> stop = StopOnSignal("runs/mine/last.ckpt")
        >>> trainer = Trainer(callbacks=[stop], accelerator="cpu", logger=False)
        >>> stop.stopped
        False
    """

    def __init__(self, path: str | None = None, *, saves: bool = True) -> None:
        self.path = path
        self.saves = saves
        self.stopped = False
        self.saved: Path | None = None
        self._asked = {"stop": False, "requeue": False}
        self._requeue: Callable[[int, Any], Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes over the signals right after Lightning, which restores the earlier handlers when training ends."""
        if stage != "fit":
            return
        write_whole_checkpoints(trainer)
        self._asked = dict.fromkeys(self._asked, False)
        connector = trainer._signal_connector
        register = connector.register_signal_handlers

        def register_and_take_over() -> None:
            connector.register_signal_handlers = register  # type: ignore[method-assign]
            register()
            self._take_over()

        # Before the first step, Lightning's own handler would send a message that no other process waits for.
        connector.register_signal_handlers = register_and_take_over  # type: ignore[method-assign]

    def _take_over(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
            return
        signal.signal(signal.SIGTERM, lambda *_: self._asked.update(stop=True))
        if SLURMEnvironment.detect():
            requeue = signal.getsignal(signal.SIGUSR1)
            if callable(requeue):
                self._requeue = requeue
                signal.signal(signal.SIGUSR1, lambda *_: self._asked.update(requeue=True))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Does what a signal asked for.

        Raises:
            SIGTERMException: A process was asked to stop.
        """
        stop, requeue = self._asked_anywhere(trainer)
        if requeue and self._requeue is not None:
            self._asked["requeue"] = False
            self._requeue(signal.SIGUSR1, None)
        if stop:
            self.stopped = True
            if self.saves:
                folder = Path(trainer.log_dir or trainer.default_root_dir)
                path = Path(self.path) if self.path is not None else folder / "stopped.ckpt"
                trainer.save_checkpoint(path)
                self.saved = path
            raise SIGTERMException

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A signal in the last step."""
        self.stopped = self._asked_anywhere(trainer)[0]

    def _asked_anywhere(self, trainer: Trainer) -> tuple[bool, bool]:
        """Whether some process was asked to stop, and to requeue the job."""
        asked = torch.tensor(list(self._asked.values()), dtype=torch.float32)
        if trainer.world_size > 1:
            asked = asked.to(trainer.strategy.root_device)
            sum_over_processes(asked)
        stop, requeue = (asked > 0).tolist()
        return stop, requeue
