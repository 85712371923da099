"""Runs a function in a process of its own, and says how long it took, how much memory, what it printed and what it started."""

import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

MOST_SECONDS = 10.0
"""Of computing; a file that takes more hangs."""

WAIT_S = 60.0
"""After which a process is killed that may wait for ever, or for a busy machine."""

MOST_BYTES = 2 * 10**9
STARTS = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)
"""Events of Python that tell of another program."""

_ASKS_FOR_PATHS = "import sys, json; print(json.dumps(sys.path))"  # jsonargparse's stubs, in Python itself

_ROOM = 6 * 2**30  # of address space, so that a file that would fill the memory fails instead


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        problem: What must not be: a stack trace, a program that was started; empty if it went well.
        seconds: How long it computed.
        peak_bytes: Most memory that was resident.
        said: The user's error; empty if there was none.
        hung: Whether it had to be killed.
    """

    problem: str
    seconds: float
    peak_bytes: int
    said: str
    hung: bool = False

    @property
    def is_safe(self) -> bool:
        return not self.problem and not self.hung and self.seconds <= MOST_SECONDS and self.peak_bytes <= MOST_BYTES


def _child(connection: Connection, call: Callable[..., object], arguments: Sequence[object], folder: Path) -> None:
    started: list[str] = []

    def note(event: str, details: object) -> None:
        if event in STARTS and _ASKS_FOR_PATHS not in str(details):
            started.append(f"{event} {str(details)[:300]}")

    os.chdir(folder)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))
    sys.addaudithook(note)
    from lit_splitmask.errors import UserError

    problem = said = ""
    begin = time.process_time()
    try:
        call(*arguments)
    except UserError as error:
        said = str(error)
    except BaseException:
        problem = traceback.format_exc()[-1500:]
    seconds = time.process_time() - begin
    if started:
        problem = f"it started {'; '.join(started)}. {problem}"
    if len(said) > 2_000 or "Traceback" in said:
        problem = f"the error is no paragraph: {said[:300]}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    connection.send((problem, seconds, peak, said))


def run_apart(call: Callable[..., object], *arguments: object, folder: Path, wait_s: float = WAIT_S) -> Outcome:
    """Calls a function of a module in a process of its own, which is forked from one that has imported the package.

    Args:
        call: The function; what it returns is not used.
        arguments: Its arguments.
        folder: Current directory of the process.
        wait_s: Seconds after which it is killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["calls"])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the server of Python 3.11 learns of no other paths
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, call, arguments, folder), daemon=True)
    process.start()
    sender.close()
    begin = time.monotonic()
    try:
        if receiver.poll(wait_s):
            problem, seconds, peak, said = receiver.recv()
            return Outcome(problem, seconds, peak, said)
        hung = process.is_alive()
    except EOFError:
        hung = False
    peak = _peak_of(process.pid) if hung else 0
    process.kill()
    process.join()
    if hung:
        return Outcome("", time.monotonic() - begin, peak, "", hung=True)
    return Outcome(f"the process ended with {process.exitcode}", time.monotonic() - begin, peak, "")


def _peak_of(pid: int | None) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
