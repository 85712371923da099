"""Files that are written whole or not at all, locks that end with their process, and regular files read with clear errors."""

import errno
import json
import math
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from lit_splitmask.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, which does not delete files that a process has open
    fcntl = None  # type: ignore[assignment]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib turns two slashes into one; C:/ is a drive
_COPY = {
    "s3": "copy it with `aws s3 sync {root} DIR`",
    "gs": "copy it with `gcloud storage rsync --recursive {root} DIR`",
}

_PARTIAL = re.compile(r"\.[0-9a-f]{12}\.tmp$")
"""How the names of :func:`partial_name` end."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


NETWORK_SECONDS = 60.0
"""How long a download waits for the server."""


@contextmanager
def bounded_waiting() -> Iterator[None]:
    """Ends waits of more than :data:`NETWORK_SECONDS` for another machine with an OSError; a download would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def check_regular(path: str | Path) -> os.stat_result:
    """Checks that a path does not lead to a pipe, a socket or a device, also by links: reading one may never end.

    Returns:
        The status of what it leads to.

    Raises:
        OSError: It does, or it does not exist.
    """
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # reading a folder fails anyway
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, and only files are read", str(path))
    return status


def is_remote(path: str) -> bool:
    """Whether a path is an address, such as ``s3://bucket/folder``, and not a folder or file of this machine."""
    return _ADDRESS.match(path) is not None


def local_folder(root: str) -> Path:
    """The path of a folder of images, which must be on this machine.

    Raises:
        UserError: It is an address.
    """
    if not is_remote(root):
        return Path(root).expanduser()
    scheme = root.partition(":")[0]
    copy = _COPY.get(scheme, "download it").format(root=root)
    raise UserError(
        f"{root} is an address, but images are read from folders on this machine: {copy}, and give the folder DIR. To read "
        "from a bucket while training, write shards with lit-splitmask shard, and give --data Shards with the bucket's address."
    )


def as_typed(path: str | Path) -> Path:
    """The absolute path with the name that the user typed; links are not resolved."""
    return Path(os.path.abspath(Path(path).expanduser()))


def from_here(path: str | Path) -> str:
    """A path as a user would type it: relative to the current directory if it is below it."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def is_file(path: str | Path) -> bool:
    """Whether a path leads to a regular file; False for texts that cannot be a path, such as too long ones."""
    return os.path.isfile(path)


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: It cannot be read, or is a pipe, a socket or a device.
    """
    check_regular(path)
    return Path(path).read_bytes()


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """The text of a regular file.

    Raises:
        OSError: It cannot be read, or is a pipe, a socket or a device.
        UnicodeDecodeError: It is in another encoding.
    """
    return read_bytes(path).decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def partial_name(path: Path) -> Path:
    """A temporary name in the folder of ``path``, unique even if several machines share the folder."""
    return path.with_name(f"{path.name}.{uuid4().hex[:12]}.tmp")


def open_partial(path: Path) -> tuple[Path, BinaryIO]:
    """Opens a new file under a temporary name, which :func:`remove_abandoned` leaves alone while this process has it open.

    Returns:
        The temporary name in the folder of ``path``, and the file to write.
    """
    while True:
        partial = partial_name(path)
        file = partial.open("xb")
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks: there, abandoned files stay
                fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists():  # otherwise it was taken for an abandoned file before it was locked
            return partial, file
        file.close()


def remove_abandoned(folder: Path, start: str = "") -> None:
    """Removes temporary files whose process was killed; never those of a running process, on this machine or another.

    Args:
        folder: The folder; it may be missing.
        start: Prefix of the files' names.
    """
    for partial in folder.glob(f"{start}*.tmp"):
        if not _PARTIAL.search(partial.name):
            continue
        with suppress(OSError), partial.open("r+b") as file:  # in use, gone, or of another user
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name when it is complete and on disk. Makes missing folders.

    A file that had the name keeps its contents under its other names (hard links).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, file = open_partial(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Makes a folder that appears under its name when it is complete and on disk; an empty one of that name is replaced.

    Yields:
        The folder to write to, under a temporary name. It is removed if the block raises.

    Raises:
        UserError: The disk is full or fails, or the folder cannot be written to.
    """
    partial = partial_name(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in partial.iterdir():
            with file.open("r+b") as written:
                os.fsync(written.fileno())
        _sync_folder(partial)
        if path.is_dir():
            path.rmdir()  # fails if it is not empty
        os.rename(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Makes new names in a folder survive a power cut."""
    if fcntl is None:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do this for folders
            raise
    finally:
        os.close(descriptor)


def write_atomically(path: str | Path, data: bytes | memoryview) -> None:
    """Writes a file by renaming a temporary one, so that readers never see a partial file. Makes missing folders.

    Raises:
        UserError: The disk is full or fails, or the folder cannot be written to.
    """
    path = Path(path)
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: str | Path, error: OSError) -> UserError:
    """The error for a file that cannot be written."""
    if error.errno in _NO_SPACE:
        advice = "free some space, or choose another disk"
    elif error.errno in _NOT_ALLOWED:
        advice = "choose a folder that you may write to"
    else:
        advice = "check the folder and its disk"
    return UserError(f"{path} cannot be written ({error.strerror or error}), so nothing was written: {advice}.")


def check_temporary_folder() -> None:
    """Checks that there is a folder for temporary files, without which torch cannot even be imported.

    Raises:
        UserError: There is none.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UserError(
            f"{error.strerror}, but Python and torch need one: set the environment variable TMPDIR to a writable folder."
        ) from None


def is_disk_error(error: OSError) -> bool:
    """Whether the disk or its permissions are the reason, not the program."""
    return error.errno in (*_NO_SPACE, *_NOT_ALLOWED, errno.EIO, errno.ESTALE)


def lock(path: Path) -> BinaryIO | None:
    """Makes and locks a file until it is closed or its process ends, however it ends.

    Returns:
        The open file; None if another process holds the lock.
    """
    while True:
        file = path.open("ab")
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by loader processes
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.close()
                return None
            return file  # a file system without locks
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # the process that held the lock has just removed the file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock, once no other process does, for what is written in a moment; see :func:`lock`.

    Args:
        path: The lock's file, which is removed afterwards. Its folder must exist.
    """
    while (file := lock(path)) is None:
        time.sleep(0.05)
    with file:
        yield
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes ``target`` a hard link to ``source``, or a copy if that fails (a file system without links, an existing target)."""
    try:
        os.link(source, target)
    except OSError:
        with (
            source.open("rb") as original,
            whole_file(target) as copy,
        ):  # never into an existing file, which may be a link
            shutil.copyfileobj(original, copy)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; NaN and infinities become null."""
    write_atomically(path, json.dumps(without_nan(value), indent=2).encode())


def without_nan(value: Any) -> Any:
    """Replaces NaN and infinities, which JSON lacks, by None in nested dicts and lists; tuples become lists."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file, stripped; with any line endings, with or without a byte order mark.

    Raises:
        UserError: The file does not exist, cannot be read, or is not UTF-8 text.
    """
    try:
        text = read_text(path, "utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"The list {path} does not exist. Check the path.") from None
    except OSError as error:
        raise UserError(f"The list {path} cannot be read ({error.strerror}). Check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"The list {path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
