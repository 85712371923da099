"""How a process ends when it is stopped or, as one of several of a run, when the run fails; errors that come from others."""

import os
import signal
import sys
import time

WAIT = 3.0
"""Seconds that the process that started the others has to end before them; Lightning looks after them every five seconds."""


class Terminated(SystemExit):
    """SIGTERM, while nothing is trained: in training, ``StopOnSignal`` takes it.

    Attributes:
        kept: What was saved, and the command to run then; None if nobody knows.
    """

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.kept: str | None = None


def end_at_sigterm() -> None:
    """Lets SIGTERM raise :class:`Terminated`, so that files are closed, locks are released, and the user gets a word."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> None:
    raise Terminated


def leave_the_others(code: int) -> None:
    """Ends this process at once if it is one of several; does nothing otherwise.

    An ordinary end may wait for ever for processes that have gone. One that Lightning started waits for the one that started it,
    which Lightning would kill otherwise, with another exit code.
    """
    if not _is_one_of_several():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    parent, until = os.getppid(), time.monotonic() + WAIT
    while os.environ.get("LOCAL_RANK", "0") != "0" and os.getppid() == parent and time.monotonic() < until:
        time.sleep(0.05)
    os._exit(code)


def explain(error: RuntimeError) -> str | None:
    """What an error means that comes from other processes, and what to do; None for any other error."""
    text = str(error)
    if any(part in text for part in ("unable to allocate shared memory", "killed by signal: Bus error")):
        return (
            "The shared memory (/dev/shm), through which loader processes pass images, is full: give it more (docker run "
            "--shm-size=2g), or load images without other processes (data.num_workers=0). Continue a run that has begun with "
            "--name NAME --resume."
        )
    lost = any(part in text for part in ("closed by peer", "reset by peer", "Broken pipe", "remote process exited"))
    if lost and _is_one_of_several():
        return "Another process of this run has ended, so this one ends too: see what that one said."
    return None


def _is_one_of_several() -> bool:
    torch = sys.modules.get("torch")  # imported only by commands that need it
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    return bool(torch.distributed.get_world_size() > 1)
