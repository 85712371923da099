"""Reads the indexes of folders that earlier versions wrote as JSON."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.files import read_text
from lit_splitmask.images.folder_names import same_name
from lit_splitmask.images.records import Records
from lit_splitmask.images.scan import FileRecord
from lit_splitmask.images.split import Dropped

JSON_VERSION = 2
"""The version that is read; 1 hashed pixels differently."""


def read_json(path: Path) -> tuple[Any, dict[str, Any]]:
    """The version of an index, and the fields of a ``FolderIndex``.

    Raises:
        ValueError: It is damaged; KeyError, TypeError, AttributeError, IndexError and OverflowError mean so too.
        OSError: It cannot be read.
    """
    stored = json.loads(read_text(path))
    version = stored.pop("version")
    for name in ("files", "unreadable"):
        stored[name] = Records.of({file: _record(entry) for file, entry in stored[name].items()})
    classes, files, given = stored["classes"], stored["files"], stored.pop("given_labels", {})
    labels = [given[file] for file in files] if given else _by_folder(files, classes, stored["class_level"])
    if any(not -1 <= label < len(classes) for label in labels):
        raise ValueError("there are labels without a class")
    fields = {
        **stored,
        "root": Path(stored["root"]),
        "dropped": [Dropped(**entry) for entry in stored["dropped"]],
        "file_labels": np.array(labels, dtype=np.int32),
        "lists_labels": bool(given),
    }
    return version, fields


def _by_folder(files: Iterable[str], classes: Sequence[str], class_level: int) -> list[int]:
    """Labels of images whose folder names the class; empty without classes."""
    number = {same_name(name): label for label, name in enumerate(classes)}  # older indexes hold names as on disk
    return [number[same_name(file.split("/")[class_level])] for file in files] if classes else []


def _record(entry: dict[str, Any]) -> FileRecord:
    height, width = entry["shape"]
    return FileRecord(entry["size"], entry["mtime_ns"], entry["hash"], (height, width))
