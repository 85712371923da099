"""Text and JSON files: written completely or not at all, read with clear errors."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

from lit_splitmask.errors import UserError


def partial_name(path: Path) -> Path:
    """A temporary name beside a file, unique to this writer even if machines share the folder."""
    return path.with_name(f"{path.name}.{uuid4().hex[:12]}.tmp")


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes a temporary file and renames it, so that no reader ever sees a partial one."""
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
    """Gives a file that will be replaced a second name, or copies it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; numbers that are not finite become null."""
    write_atomically(path, json.dumps(without_nan(value), indent=2).encode())


def without_nan(value: Any) -> Any:
    """The same value with None in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file, stripped, whatever its line endings.

    Raises:
        UserError: The file does not exist, or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"The list {path} does not exist. Check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"The list {path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
