"""Keeps a run going without its terminal and in any locale: it continues when nobody reads its output, and prints UTF-8."""

import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF)


class _Output(io.FileIO):
    """A file descriptor to which writing succeeds even if its other end is gone."""

    def write(self, data: Any) -> int:  # type: ignore[override]
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                raise
            return len(data)


def use_utf8() -> None:
    """Restarts this program in Python's UTF-8 mode if file names are ASCII here, so that it can write any name.

    This happens in the POSIX locale if UTF-8 mode, Python's default there, is switched off (PYTHONUTF8=0). Libraries would then
    fail in the middle of a run.
    """
    if sys.getfilesystemencoding() == "ascii" and "utf8" not in sys._xoptions:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def outlive_the_terminal() -> None:
    """Keeps this process running after a closed pipe (``| head -1``), a closed output or a lost terminal (SIGHUP)."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout = _lasting(sys.stdout, 1)
    sys.stderr = _lasting(sys.stderr, 2)


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    """A stream like the given one that never fails; it discards everything if the output was closed from the start."""
    if stream is None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != descriptor:  # otherwise a file opened later would get the number, and what libraries print
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    stream.flush()
    raw = _Output(stream.fileno(), "w", closefd=False)
    buffered = stream.isatty() or getattr(stream, "line_buffering", False)
    errors = "replace" if stream.errors == "strict" else stream.errors  # a terminal without × or √ must not end a run
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=errors, line_buffering=bool(buffered)
    )


@contextmanager
def silence() -> Iterator[None]:
    """Silences everything below errors, for example while steps are only timed."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
