"""The processes of a run: how many a launcher started, how one ends when it is stopped or the run fails, and errors of others."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lit_splitmask.errors import UserError

WAIT = 3.0
"""Seconds that the launching process has to end before the others; Lightning checks on them every five seconds."""


LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited", "Connection was likely closed")
"""Texts in the errors that a process gets when another one has ended."""

RANKS = ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK")
"""Environment variables that say which process of a run this is, by launcher; ``LOCAL_RANK`` is Lightning's own."""


@dataclass(frozen=True)
class Launched:
    """Processes that torchrun or SLURM started together.

    Attributes:
        per_node: Processes on each node.
        nodes: Number of nodes.
    """

    per_node: int
    nodes: int


def launched(environment: Mapping[str, str] | None = None) -> Launched | None:
    """The processes that a launcher started; None if this process was started alone.

    Args:
        environment: The environment variables; None for those of this process.
    """
    values = os.environ if environment is None else environment
    if "TORCHELASTIC_RUN_ID" in values:
        per_node = int(values["LOCAL_WORLD_SIZE"])
        return Launched(per_node, int(values["WORLD_SIZE"]) // per_node)
    # An interactive shell of SLURM has the job's variables too, but runs as a single process.
    if "SLURM_PROCID" in values and values.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(values.get("SLURM_NNODES", "1"))
        return Launched(int(values.get("SLURM_NTASKS", "1")) // nodes, nodes)
    return None


ALONE = ("plan", "compare", "probe", "embed", "export", "report", "shard", "convert-dalle")
"""Commands that run as a single process; several would write to the same files."""


def check_alone(command: str) -> None:
    """Checks that a command that runs as a single process was not started several times.

    Only torchrun's processes are refused: in a script of ``sbatch`` a single process has the variables of all of the job's tasks.

    Raises:
        UserError: torchrun started several.
    """
    started = launched() if "TORCHELASTIC_RUN_ID" in os.environ else None
    if command in ALONE and started is not None and started.per_node * started.nodes > 1:
        raise UserError(f"{command} runs as a single process, but torchrun started several: start it without torchrun.")


def was_started_again() -> bool:
    """Whether SLURM has requeued this job, or torchrun started its processes again."""
    return any(os.environ.get(name, "0") != "0" for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))


def this_rank() -> int:
    """Which process of a run this is, as its launcher or Lightning said; 0 for one that was started alone."""
    return int(next((os.environ[name] for name in RANKS if name in os.environ), "0"))


def error_prefix() -> str:
    """How an error begins: which process it comes from, unless that is process zero."""
    return f"error (process {this_rank()})" if this_rank() else "error"


class Terminated(SystemExit):
    """SIGTERM outside training: in training, ``StopOnSignal`` handles it.

    Attributes:
        kept: What was saved, and the command to run then; None if unknown.
    """

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.kept: str | None = None


def end_at_sigterm() -> None:
    """Lets SIGTERM raise :class:`Terminated`, so that files are closed, locks are released, and the user gets a message."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> None:
    raise Terminated


def pass_on_sigterm() -> bool:
    """Sends SIGTERM to the process that started this one, if that is the run's first: Lightning would kill it silently.

    Returns:
        Whether it was sent.
    """
    is_started_by_first = launched() is None and os.environ.get("LOCAL_RANK", "0") != "0"
    if is_started_by_first:
        os.kill(os.getppid(), signal.SIGTERM)
    return is_started_by_first


def leave_the_others(code: int) -> None:
    """Ends this process at once if it is one of several; does nothing otherwise.

    A normal exit may wait forever for processes that are gone. One that Lightning started waits for the one that started it,
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
            "--shm-size=2g), or load images in the main process (data.num_workers=0). Continue a run that has started with "
            "--name NAME --resume."
        )
    is_connecting = type(error).__name__ == "DistNetworkError"  # the processes are not known as several yet
    if any(part in text for part in LOST) and (is_connecting or _is_one_of_several()):
        return "Another process of this run has ended, so this one stops too: see the error of that one."
    return None


def _is_one_of_several() -> bool:
    torch = sys.modules.get("torch")  # imported only by commands that need it
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    return bool(torch.distributed.get_world_size() > 1)
