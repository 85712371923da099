"""Names of outputs that are written after long work: a process holds one from the start, so that no other takes it."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lit_splitmask.errors import UserError
from lit_splitmask.files import as_typed, cannot_write, lock


@dataclass
class Reserved:
    """A free name that this process alone may give to an output.

    Args:
        path: The file or folder to write.
        held: The lock, a hidden file beside it. It ends with the process, however that ends.
        made: The folders that were made for it, the innermost first.
    """

    path: Path
    held: BinaryIO
    made: list[Path] = field(default_factory=list)

    def release(self) -> None:
        """Lets others take the name, unless the output has it now; removes the lock, and folders that stayed empty."""
        _lock_of(self.path).unlink(missing_ok=True)
        self.held.close()
        for folder in self.made:
            with suppress(OSError):  # it holds something
                folder.rmdir()


@contextmanager
def reserved(path: Path, advice: str, *, may_exist: bool = False) -> Iterator[None]:
    """Holds a name for what is written in the block; see :func:`reserve`.

    Args:
        path: The file or folder to write.
        advice: What to do if the name is not free, as the end of a sentence.
        may_exist: Whether to go on with what has the name.

    Raises:
        UserError: The path exists or another process is writing it, or the folder cannot be written to.
    """
    held = reserve(path, may_exist=may_exist)
    if held is None:
        is_written = may_exist or not is_taken(path)
        problem = "is being written by another command: wait for that, or" if is_written else "already exists:"
        raise UserError(f"{path} {problem} {advice}.")
    try:
        yield
    finally:
        held.release()


def reserve(path: Path, *, may_exist: bool = False) -> Reserved | None:
    """Reserves a name; makes missing folders. What a killed process left of a folder of this name is removed.

    Args:
        path: The file or folder to write.
        may_exist: Whether a name that something has is free too.

    Returns:
        The reservation; None if the path exists and is no empty folder, or another process holds it.

    Raises:
        UserError: The folder cannot be written to.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(_lock_of(path))
    except OSError as error:
        raise cannot_write(path, error) from error
    if held is None:
        return None
    mine = Reserved(path, held, made)
    if is_taken(path) and not may_exist:
        mine.release()
        return None
    partial = re.compile(re.escape(path.name) + r"\.[0-9a-f]{12}\.tmp")
    for entry in path.parent.iterdir():
        if partial.fullmatch(entry.name) and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
    return mine


def is_taken(path: Path) -> bool:
    """Whether a path leads to anything but an empty folder."""
    return os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir()))


def _lock_of(path: Path) -> Path:
    path = as_typed(path)  # the current folder has a name too
    return path.parent / f".{path.name}.lock"
