"""Notices a file that was replaced after the folder was scanned."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lit_splitmask.errors import UserError


class Scanned(Protocol):
    """What a scan keeps of a file."""

    @property
    def size(self) -> int:
        """Size in bytes."""

    @property
    def mtime_ns(self) -> int:
        """Modification time in nanoseconds."""

    @property
    def hash(self) -> str:
        """Hash of the pixels."""


def check_same(path: Path, size: int, mtime_ns: int, is_same: Callable[[], bool], *, kind: str = "image") -> None:
    """Checks a file before it is read: another one may have another class, other labels, or be in another split.

    Args:
        path: The file.
        size, mtime_ns: Its size in bytes and its modification time in nanoseconds when it was scanned.
        is_same: Compares the content; called only if one of them differs.
        kind: What the file is, for the message.

    Raises:
        UserError: The file was replaced.
    """
    try:
        status = os.stat(path)
    except OSError:
        return  # reading it says why
    if (status.st_size, status.st_mtime_ns) != (size, mtime_ns) and not is_same():
        raise UserError(
            f"The {kind} {path} was replaced after the folder was scanned: restore the original and resume the "
            "run, or start a new run with the folder as it is now."
        )
