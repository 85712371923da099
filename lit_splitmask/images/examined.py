"""Facts about image files, each decoded once, kept so that only new and changed ones are decoded again."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.images.scan import examine, in_threads

VERSION = 2  # 1 hashed images of more than 8 bits as they look


@dataclass(frozen=True)
class Examined:
    """What is known about an image file.

    Attributes:
        size, mtime_ns: Size in bytes and modification time in nanoseconds, to detect changes.
        hash: Hash of the decoded pixels; empty if the file cannot be decoded.
        height, width: Upright size in pixels; 0 if the file cannot be decoded.
        problem: Why it cannot be decoded; empty if it can.
    """

    size: int
    mtime_ns: int
    hash: str
    height: int
    width: int
    problem: str = ""


def examine_once(root: Path, files: Sequence[str], path: Path) -> dict[str, Examined]:
    """Decodes every image that the record does not know yet, or that has changed since, and updates the record.

    Args:
        root: Folder that the paths are relative to.
        files: The images.
        path: File of the record.

    Raises:
        UserError: The record is damaged.
    """
    known = load_examined(path) if path.exists() else {}
    unchanged = {file: known[file] for file in files if file in known and _is_unchanged(root / file, known[file])}
    new = [file for file in files if file not in unchanged]
    found = dict(zip(new, in_threads(lambda file: _examine(root / file), new, f"Reading {root.name}"), strict=True))
    current = {file: unchanged[file] if file in unchanged else found[file] for file in files}
    if current != known:
        _save(path, current)
    return current


def load_examined(path: Path) -> dict[str, Examined]:
    """Loads a record without looking at the images; empty if it is of another version.

    Raises:
        UserError: It is damaged.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != VERSION:
            return {}
        return {file: Examined(*entry) for file, entry in stored["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The record {path} is damaged ({type(error).__name__}: {error}). Delete it.") from error


def _save(path: Path, examined: Mapping[str, Examined]) -> None:
    files = {file: astuple(entry) for file, entry in examined.items()}
    write_atomically(path, json.dumps({"version": VERSION, "files": files}).encode())


def _is_unchanged(path: Path, known: Examined) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (known.size, known.mtime_ns)


def _examine(path: Path) -> Examined:
    record, error = examine(path)
    return Examined(record.size, record.mtime_ns, record.hash, *record.shape, "" if error is None else str(error))
