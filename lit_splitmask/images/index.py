"""The record of a folder: its images, classes and splits, as it is kept and compared with the folder."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.images.layout import LabelsMode
from lit_splitmask.images.scan import FileRecord, examine, in_threads
from lit_splitmask.images.split import Dropped, Splits

log = logging.getLogger(__name__)

VERSION = 2  # 1 hashed pixels otherwise


@dataclass(frozen=True)
class SplitOptions:
    """How a folder is read and split.

    Args:
        labels: ``folders`` insists on class folders, ``none`` ignores them, ``auto`` looks.
        val_share: Share of the images for validation, where no folder for it is given.
        test_share: The same for the test; None means 0.2 with labels and 0 without.
        max_bad_share: Share of files that may be unreadable before it is an error.
        seed: Of the splits alone, so that runs with other seeds share them.
    """

    labels: LabelsMode = "auto"
    val_share: float = 0.1
    test_share: float | None = None
    max_bad_share: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class FolderIndex:
    """A folder's images, classes and splits.

    Args:
        root: The resolved folder.
        path: Where this record is kept.
        options: What decides the splits: seed, val_share, test_share, labels.
        layout: What was understood of the folder, in one line.
        classes: Sorted class names; empty without labels.
        class_level: Which part of a relative path names the class.
        files: All readable images by POSIX path relative to the root, sorted.
        unreadable: Those that cannot be decoded.
        splits: The images of ``train``, ``val`` and ``test``; a split may be missing.
        dropped: Images taken out of a split, because another holds the same pixels.
        conflicts: Groups of identical train images under different labels.
        given_labels: Labels by file, where a list gives them; empty where folders name the classes.
        list_digest: Of the list that names the files, with all that it says of them; empty without one.
    """

    root: Path
    path: Path
    options: dict[str, Any]
    layout: str
    classes: list[str]
    class_level: int
    files: dict[str, FileRecord]
    unreadable: dict[str, FileRecord]
    splits: Splits
    dropped: list[Dropped] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    given_labels: dict[str, int] = field(default_factory=dict)
    list_digest: str = ""

    def labels(self, files: Sequence[str]) -> list[int]:
        """The labels of images, all -1 without labels."""
        if not self.classes:
            return [-1] * len(files)
        if self.given_labels:
            return [self.given_labels[file] for file in files]
        number = {name: label for label, name in enumerate(self.classes)}
        return [number[file.split("/")[self.class_level]] for file in files]

    @property
    def median_size(self) -> tuple[int, int]:
        """Median height and width of the readable images."""
        shapes = [record.shape for record in self.files.values()]
        return int(median(height for height, _ in shapes)), int(median(width for _, width in shapes))

    def describe(self) -> str:
        """What the folder holds, in one line."""
        counts = ", ".join(f"{name} {len(files):,}" for name, files in self.splits.items())
        labelled = f"{len(self.classes)} classes" if self.classes else "no labels"
        height, width = self.median_size
        return f"{self.root.name}: {counts} images; {labelled}; median {height} x {width} px ({self.layout})"


def folder_in(index_dir: str | Path, root: Path) -> Path:
    """Where everything that is derived from a folder is kept: ``<index_dir>/<name>-<8 digits of its path's hash>``."""
    resolved = root.resolve()
    return Path(index_dir) / f"{resolved.name}-{hashlib.blake2b(str(resolved).encode(), digest_size=4).hexdigest()}"


def load_index(path: Path) -> FolderIndex:
    """Reads a record, without looking at the images.

    Raises:
        UserError: It is damaged, or of another version.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = stored.pop("version")
        for name in ("files", "unreadable"):
            stored[name] = {file: _record(entry) for file, entry in stored[name].items()}
        stored["dropped"] = [Dropped(**entry) for entry in stored["dropped"]]
        index = FolderIndex(**{**stored, "root": Path(stored["root"]), "path": path})
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"The split record {path} is damaged ({type(error).__name__}: {error}). Delete it; the same seed and "
            "images give the same split again."
        ) from error
    if version != VERSION:
        raise UserError(f"The split record {path} has version {version}, this program reads {VERSION}. Delete it.")
    return index


def _record(entry: dict[str, Any]) -> FileRecord:
    height, width = entry["shape"]
    return FileRecord(entry["size"], entry["mtime_ns"], entry["hash"], (height, width))


def save_index(index: FolderIndex) -> None:
    """Writes a record to its ``path``."""
    stored = {"version": VERSION, **vars(index), "root": str(index.root)}
    del stored["path"]
    write_atomically(index.path, json.dumps(stored, default=vars).encode())  # of the dataclasses inside


def deciding(options: SplitOptions) -> dict[str, Any]:
    """The options that decide the splits."""
    return {name: value for name, value in asdict(options).items() if name != "max_bad_share"}


def check_options(index: FolderIndex, options: SplitOptions) -> None:
    """Checks that the record was made with these options.

    Raises:
        UserError: It was not.
    """
    asked = deciding(options)
    differing = [name for name in asked if asked[name] != index.options.get(name)]
    if differing:
        told = ", ".join(f"{name}={asked[name]} (stored: {index.options.get(name)})" for name in differing)
        raise UserError(
            f"The folder {index.root} was split with other options: {told}. Pass the stored values, or delete "
            f"{index.path} to make a new split; weights and selections made with the old one can't be compared then."
        )


def check_unchanged(index: FolderIndex, present: set[str]) -> FolderIndex:
    """Compares the images with their record by names, sizes and times of change.

    A copied folder has new times; images with the same pixels as before are the same, and the record takes their times.

    Args:
        index: The record.
        present: The images that there are now.

    Raises:
        UserError: They are not the same.
    """
    known = index.files | index.unreadable
    touched = [file for file in sorted(present & known.keys()) if _differs(index.root / file, known[file])]
    examined = in_threads(lambda file: examine(index.root / file)[0], touched, f"Reading {index.root.name} again")
    now = dict(zip(touched, examined, strict=True))
    changes = {
        "added": sorted(present - known.keys()),
        "missing": sorted(known.keys() - present),
        "changed": [file for file in touched if now[file].hash != known[file].hash],
    }
    if not any(changes.values()):
        if not touched:
            return index
        files = {file: now.get(file, record) for file, record in index.files.items()}
        unreadable = {file: now.get(file, record) for file, record in index.unreadable.items()}
        index = replace(index, files=files, unreadable=unreadable)
        save_index(index)
        return index
    told = "; ".join(
        f"{len(files)} {kind} ({', '.join(files[:3])}{', …' if len(files) > 3 else ''})"
        for kind, files in changes.items()
        if files
    )
    raise UserError(
        f"The images in {index.root} are not those that were split before: {told}. Restore them, or delete "
        f"{index.path} to make a new split; weights and selections made with the old one can't be compared then."
    )


def _differs(path: Path, record: FileRecord) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return record.size != 0
    return (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns)
