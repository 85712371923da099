"""Files that are written completely or not at all; only regular ones are read; lists are read with clear errors."""

import errno
import json
import math
import os
import shutil
import stat
from pathlib import Path
from typing import Any
from uuid import uuid4

from lit_splitmask.errors import UserError


def check_regular(path: str | Path) -> None:
    """Checks that a path does not lead to a pipe, a socket or a device, also by links: reading one may never end.

    Raises:
        OSError: It does, or leads nowhere.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a folder fails by itself
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, and only files are read", str(path))


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


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes a file by renaming a temporary one, so that readers never see a partial file. Makes missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes ``target`` a hard link to ``source``, or a copy if that fails (a file system without links, an existing target)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


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
