"""The index of a folder: its images, classes and splits; saved, loaded, and compared with the folder."""

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
from lit_splitmask.images.folder_names import same_name
from lit_splitmask.images.layout import LabelsMode, LayoutName
from lit_splitmask.images.scan import FileRecord, examine, in_threads
from lit_splitmask.images.split import Dropped, Splits

log = logging.getLogger(__name__)

VERSION = 2  # version 1 hashed pixels differently


@dataclass(frozen=True)
class SplitOptions:
    """How a folder is read and split.

    Args:
        labels: ``folders`` requires class folders, ``none`` ignores them, ``auto`` uses them if there are any.
        layout: What the folder is: ``splits`` (split folders), ``classes`` (class folders), ``subfolders`` (classes named by the
            folders one level down) or ``flat`` (no labels); ``auto`` looks, and stops where two readings are about as likely.
        val_share: Share of the images for validation, if there is no folder for it.
        test_share: Share of the images for the test, if there is no folder for it; None for 0.2 with labels and 0 without.
        max_bad_share: Largest share of files that may be unreadable; up to three may be in any case, but not more than half.
        seed: Seed of the splits only, so that runs with different seeds share them.
    """

    labels: LabelsMode = "auto"
    layout: LayoutName = "auto"
    val_share: float = 0.1
    test_share: float | None = None
    max_bad_share: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class FolderIndex:
    """A folder's images, classes and splits.

    Args:
        root: The folder, resolved.
        path: File of this index.
        options: The options that determine the splits: seed, val_share, test_share, labels, layout.
        layout: Description of the layout, in one line.
        classes: Sorted class names; empty without labels.
        class_level: Which part of a relative path names the class.
        files: Records of all readable images by POSIX path relative to the root, sorted.
        unreadable: Records of the images that cannot be decoded.
        splits: The images of ``train``, ``val`` and ``test``; a split may be missing.
        dropped: Images removed from a split because another split holds the same pixels.
        conflicts: Groups of identical training images with different labels.
        given_labels: Label by file, if a list gives the labels; empty if folders name the classes.
        list_digest: Digest of the list that names the images, with its labels, splits and groups; empty without a list.
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
        """Labels of the given images; all -1 if the folder has no labels."""
        if not self.classes:
            return [-1] * len(files)
        if self.given_labels:
            return [self.given_labels[file] for file in files]
        number = {
            same_name(name): label for label, name in enumerate(self.classes)
        }  # older indexes hold names as on disk
        return [number[same_name(file.split("/")[self.class_level])] for file in files]

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
    """Directory of everything derived from a folder: ``<index_dir>/<name>-<8 digits of its path's hash>``."""
    resolved = root.resolve()
    return Path(index_dir) / f"{resolved.name}-{hashlib.blake2b(str(resolved).encode(), digest_size=4).hexdigest()}"


def load_index(path: Path) -> FolderIndex:
    """Loads an index without looking at the images.

    Raises:
        UserError: The file is damaged, or of another version.
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
            f"The index {path} is damaged ({type(error).__name__}: {error}). Delete it; the same seed and images give the "
            "same split again."
        ) from error
    if version != VERSION:
        raise UserError(f"The index {path} has version {version}, but this program reads version {VERSION}. Delete it.")
    return index


def _record(entry: dict[str, Any]) -> FileRecord:
    height, width = entry["shape"]
    return FileRecord(entry["size"], entry["mtime_ns"], entry["hash"], (height, width))


def save_index(index: FolderIndex) -> None:
    """Writes an index to its ``path``."""
    stored = {"version": VERSION, **vars(index), "root": str(index.root)}
    del stored["path"]
    write_atomically(index.path, json.dumps(stored, default=vars).encode())  # vars serialises the nested dataclasses


def split_settings(options: SplitOptions) -> dict[str, Any]:
    """The options that determine the splits."""
    return {name: value for name, value in asdict(options).items() if name != "max_bad_share"}


def check_options(index: FolderIndex, options: SplitOptions) -> None:
    """Checks that an index was made with these options.

    Raises:
        UserError: An option that determines the splits differs.
    """
    requested = split_settings(options)
    stored = requested | index.options  # an older index lacks newer options, whose outcome is compared instead
    differing = [name for name in requested if requested[name] != stored[name]]
    if differing:
        listed = ", ".join(f"{name}={requested[name]} (stored: {stored[name]})" for name in differing)
        raise UserError(
            f"The folder {index.root} was split with other options: {listed}. Pass the stored values, or delete {index.path} "
            "to make a new split; weights and scores from the old split can't be compared with those from the new one."
        )


def check_unchanged(index: FolderIndex, present: set[str]) -> FolderIndex:
    """Compares the images of a folder with its index, by names, sizes and modification times.

    An image with a new time but the same pixels, as in a copied folder, is unchanged; the index is saved with the new time.

    Args:
        index: The index.
        present: The images in the folder now.

    Returns:
        The index, with current modification times.

    Raises:
        UserError: Images were added, removed or changed.
    """
    known = index.files | index.unreadable
    touched = [file for file in sorted(present & known.keys()) if _is_touched(index.root / file, known[file])]
    examined = in_threads(lambda file: examine(index.root / file)[0], touched, f"Reading {index.root.name} again")
    current = dict(zip(touched, examined, strict=True))
    changes = {
        "added": sorted(present - known.keys()),
        "missing": sorted(known.keys() - present),
        "changed": [file for file in touched if current[file].hash != known[file].hash],
    }
    if not any(changes.values()):
        if not touched:
            return index
        files = {file: current.get(file, record) for file, record in index.files.items()}
        unreadable = {file: current.get(file, record) for file, record in index.unreadable.items()}
        index = replace(index, files=files, unreadable=unreadable)
        save_index(index)
        return index
    listed = "; ".join(
        f"{len(files)} {kind} ({', '.join(files[:3])}{', …' if len(files) > 3 else ''})"
        for kind, files in changes.items()
        if files
    )
    raise UserError(
        f"The images in {index.root} have changed since they were split: {listed}. Restore them, or delete {index.path} to "
        "make a new split; weights and scores from the old split can't be compared with those from the new one."
    )


def _is_touched(path: Path, record: FileRecord) -> bool:
    """Whether a file's size or modification time differs from its record."""
    try:
        status = os.stat(path)
    except OSError:
        return record.size != 0
    return (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns)
