"""The record of a folder: its images, classes and splits, made once and kept in ``splits.json``."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from lit_splitmask.datamodules.layout import LabelsMode, list_images, understand
from lit_splitmask.datamodules.scan import FileRecord, Storing, examine, in_threads, scan
from lit_splitmask.datamodules.split import Dropped, Splits, check_shares, cut, drop_shared, find_conflicts, join
from lit_splitmask.errors import UserError

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


def load_or_make(
    root: str | Path,
    index_dir: str | Path,
    options: SplitOptions,
    storing: Storing | None = None,
    name: str = "splits.json",
) -> FolderIndex:
    """The record of a folder; only the first call decodes anything.

    Args:
        root: The folder.
        index_dir: Where the records of all folders are kept.
        options: How the folder is read and split.
        storing: Gets the images when they are decoded.
        name: Of the record.

    Raises:
        UserError: The folder cannot be used, has changed since, or was split with other options.
    """
    path = folder_in(index_dir, Path(root)) / name
    if not path.exists():
        return make_index(Path(root), path, options, storing)
    index = load_index(path)
    check_options(index, options)
    return check_unchanged(index, _known_or_inside(index, list_images(index.root)))


def make_index(root: Path, path: Path, options: SplitOptions, storing: Storing | None = None) -> FolderIndex:
    """Scans a folder, splits it, reports what is odd about it, and keeps the record at ``path``.

    Raises:
        UserError: The folder cannot be used.
    """
    layout = understand(root, options.labels)
    return make_from_lists(
        root,
        path,
        options,
        files=layout.files,
        layout=layout.description,
        classes=layout.classes,
        labels=layout.labels(),
        given=layout.given,
        class_level=layout.class_level,
        storing=storing,
    )


def make_from_lists(
    root: Path,
    path: Path,
    options: SplitOptions,
    *,
    files: Sequence[str],
    layout: str,
    classes: list[str],
    labels: Mapping[str, int],
    given: Mapping[str, Sequence[str]],
    groups: Mapping[str, str] | None = None,
    class_level: int | None = None,
    storing: Storing | None = None,
) -> FolderIndex:
    """Scans listed images, cuts the splits that are missing, reports what is odd, and keeps the record at ``path``.

    Args:
        root: What the paths are relative to.
        path: Where the record is kept.
        options: How missing splits are cut.
        files: Sorted.
        layout: What was understood, in one line.
        classes: Sorted class names; empty without labels.
        labels: By file; not looked at without classes.
        given: The images of each split that is given.
        groups: By file; images of one group stay in one split.
        class_level: Which part of a path names the class; None to keep ``labels`` in the record.
        storing: Gets the images when they are decoded.

    Raises:
        UserError: The images cannot be used.
    """
    check_shares(options.val_share, options.test_share or 0.0)
    records = scan(root, files, options.max_bad_share, storing)
    readable = {file: record for file, record in records.items() if record.hash}
    hashes = {file: record.hash for file, record in readable.items()}
    labels = labels if classes else dict.fromkeys(files, -1)
    present = {name: [file for file in members if file in readable] for name, members in given.items()}
    splits, dropped = drop_shared(present, hashes)
    _warn_of_torn(splits, groups or {})
    test_share = options.test_share if options.test_share is not None else (0.2 if classes else 0.0)
    wanted = {"test": test_share, "val": options.val_share}
    shares = {name: share for name, share in wanted.items() if share > 0 and name not in splits}
    together = join(hashes, groups or {})
    splits |= cut(splits.get("train", list(readable)), together, labels, shares=shares, seed=options.seed)
    index = FolderIndex(
        root=root.resolve(),
        path=path,
        options=_deciding(options),
        layout=layout,
        classes=classes,
        class_level=class_level or 0,
        files=readable,
        unreadable={file: record for file, record in records.items() if not record.hash},
        splits={name: splits[name] for name in ("train", "val", "test") if splits.get(name)},
        dropped=dropped,
        conflicts=find_conflicts(splits["train"], hashes, labels),
        given_labels={file: labels[file] for file in readable} if classes and class_level is None else {},
    )
    _report(index)
    save_index(index)
    return index


def _warn_of_torn(splits: Splits, groups: Mapping[str, str]) -> None:
    """Tells of groups that the given splits tear apart."""
    places: dict[str, set[str]] = {}
    for name, files in splits.items():
        for file in files:
            if file in groups:
                places.setdefault(groups[file], set()).add(name)
    torn = sorted(group for group, names in places.items() if len(names) > 1)
    if torn:
        log.warning(
            "%d group(s) stand in more than one of the given splits, such as %s: scores will be too good.",
            len(torn),
            ", ".join(torn[:3]),
        )


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
    write_atomically(index.path, json.dumps(stored, default=vars))  # of the dataclasses inside


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_name(path: Path) -> Path:
    """A name beside a file, of this writer's own even where machines share the folder."""
    return path.with_name(f"{path.name}.{uuid4().hex[:12]}.tmp")


def _deciding(options: SplitOptions) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name != "max_bad_share"}


def check_options(index: FolderIndex, options: SplitOptions) -> None:
    """Checks that the record was made with these options.

    Raises:
        UserError: It was not.
    """
    asked = _deciding(options)
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


def _known_or_inside(index: FolderIndex, files: list[str]) -> set[str]:
    """Leaves out files beside the split folders, which were never part of the record."""
    if index.class_level == 0:
        return set(files)
    folders = {file.split("/")[0] for file in index.files | index.unreadable}
    return {file for file in files if file.split("/")[0] in folders}


def _differs(path: Path, record: FileRecord) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return record.size != 0
    return (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns)


def _report(index: FolderIndex) -> None:
    for entry in index.dropped:
        log.warning("%s: taken out of %s.", entry.describe(), entry.split)
    if index.dropped:
        log.warning("%d image(s) were taken out, because another split holds the same pixels.", len(index.dropped))
    for group in index.conflicts:
        log.warning("These train images are identical, but carry different labels: %s.", ", ".join(group))
    log.info("%s", index.describe())
