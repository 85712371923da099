"""Files that are there whole, or not at all."""

import os
from pathlib import Path
from uuid import uuid4


def partial_name(path: Path) -> Path:
    """A name beside a file, of this writer's own even where machines share the folder."""
    return path.with_name(f"{path.name}.{uuid4().hex[:12]}.tmp")


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes a file under another name and renames it, so that no reader ever sees a part of it."""
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
