"""Records of folders as earlier versions wrote them, and changed ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.images.columns import write_columns
from lit_splitmask.images.index import load_index


def stored_in(path: Path) -> dict[str, Any]:
    """The contents of a record as the JSON of version 2."""
    index = load_index(path)
    return {
        "version": 2,
        "root": str(index.root),
        "options": index.options,
        "layout": index.layout,
        "classes": index.classes,
        "class_level": index.class_level,
        "files": {file: vars(record) for file, record in index.files.as_dict().items()},
        "unreadable": {file: vars(record) for file, record in index.unreadable.as_dict().items()},
        "splits": {name: list(files) for name, files in index.splits.items()},
        "dropped": [vars(entry) for entry in index.dropped],
        "conflicts": index.conflicts,
        "given_labels": dict(zip(index.files, index.file_labels.tolist(), strict=True)) if index.lists_labels else {},
        "list_digest": index.list_digest,
    }


def as_json(path: Path, change: Callable[[dict[str, Any]], Any] = lambda stored: None) -> Path:
    """Replaces a record by the JSON of version 2, changed; returns its path."""
    stored = stored_in(path)
    change(stored)
    path.unlink()
    old = path.with_suffix(".json")
    old.write_text(json.dumps(stored))
    return old


def rewrite(path: Path, **changes: Any) -> None:
    """Changes columns of a record, given as arrays, or what it says in its column ``about``, given as anything else."""
    with np.load(path) as archive:
        columns = dict(archive)
    about = json.loads(columns["about"].tobytes())
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            columns[name.replace("_", "-")] = value
        else:
            about[name] = value
    write_columns(path, columns | {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)})
