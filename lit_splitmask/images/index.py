"""The index of a folder: its images, classes and splits; saved, loaded, and compared with the folder."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lit_splitmask.errors import UserError
from lit_splitmask.images.columns import map_columns, write_columns
from lit_splitmask.images.index_json import JSON_VERSION, read_json
from lit_splitmask.images.label_sets import classes_of
from lit_splitmask.images.layout import LabelsMode, LayoutName
from lit_splitmask.images.names import Selection
from lit_splitmask.images.records import Records
from lit_splitmask.images.split import SPLIT_NAMES, Dropped
from lit_splitmask.images.window import DEEP

log = logging.getLogger(__name__)

VERSION = 3  # versions 1 and 2 were JSON

PIXELS_VERSION = 2
"""Changes when pixels are decoded, shrunk or stored in the cache differently."""


@dataclass(frozen=True)
class SplitOptions:
    """How a folder is read and split.

    Args:
        labels: ``folders`` requires class folders, ``none`` ignores them, ``auto`` uses them if there are any. In a list,
            ``several`` gives an image any number of labels; ``numbers`` is how ``RegressionManifest`` reads one.
        layout: What the folder is: ``splits`` (split folders), ``classes`` (class folders), ``subfolders`` (classes named by the
            folders one level down) or ``flat`` (no labels); ``auto`` looks, and stops where two are about equally likely.
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


@dataclass(frozen=True, eq=False)
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
        file_labels: (n,) int32, the label of each of the ``files``, -1 without one; empty without classes.
        lists_labels: Whether a list gives the labels, not the folders.
        dropped: Images removed from a split because another split holds the same pixels.
        conflicts: Groups of identical training images with different labels.
        list_digest: Digest of the list that names the images, with its labels, splits and groups; empty without a list.

    Attributes:
        files, unreadable: As columns, whatever mapping was given.
        splits: By number, whatever sequence was given.
        digests: Known values of :meth:`pixel_digest`, by version.
    """

    root: Path
    path: Path
    options: dict[str, Any]
    layout: str
    classes: list[str]
    class_level: int
    files: Records
    unreadable: Records
    splits: dict[str, Selection]
    file_labels: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    lists_labels: bool = False
    dropped: list[Dropped] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    list_digest: str = ""
    digests: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        files = Records.of(self.files)
        splits = {name: Selection(files.names, files.names.numbers(members)) for name, members in self.splits.items()}
        columns = {"files": files, "unreadable": Records.of(self.unreadable), "splits": splits}
        for name, value in columns.items():
            object.__setattr__(self, name, value)
        assert len(self.file_labels) == (len(files) if self.classes else 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FolderIndex):
            return False
        same = (name for name in vars(self) if name not in ("file_labels", "digests"))
        return np.array_equal(self.file_labels, other.file_labels) and all(
            getattr(self, name) == getattr(other, name) for name in same
        )

    def labels(self, files: Sequence[str]) -> np.ndarray:
        """Labels of the given images, (n,) int64; all -1 if the folder has no labels."""
        if not self.classes:
            return np.full(len(files), -1)
        return self.file_labels[self.files.names.numbers(files)].astype(np.int64)

    def deep_among(self, files: Selection | None = None) -> np.ndarray:
        """Numbers of the images of more than 8 bits, among some or all of them."""
        is_deep = self.files.hashes.astype(f"S{len(DEEP)}") == DEEP.encode()
        return np.flatnonzero(is_deep) if files is None else files.numbers[is_deep[files.numbers]]

    def pixel_digest(self, version: int) -> str:
        """A digest of the images' names and pixels, 12 hexadecimal digits, for a version of the stored pixels."""
        if str(version) not in self.digests:
            digest = hashlib.blake2b(f"version {version}".encode(), digest_size=6)
            for file, pixels in zip(self.files, self.files.hashes, strict=True):
                digest.update(file.encode("utf-8", "surrogatepass") + b"\0" + pixels + b"\n")
            self.digests[str(version)] = digest.hexdigest()
        return self.digests[str(version)]

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several labels; ``classes`` are then sets of them (``label_sets``)."""
        return self.options.get("labels") == "several"

    @property
    def median_size(self) -> tuple[int, int]:
        """Median height and width of the readable images."""
        heights, widths = self.files.shapes.T.tolist()
        return int(median(heights)), int(median(widths))

    def describe(self) -> str:
        """What the folder holds, in one line."""
        counts = ", ".join(f"{name} {len(files):,}" for name, files in self.splits.items())
        labelled = f"{len(self.classes)} classes" if self.classes else "no labels"
        if self.several_labels:
            labelled = f"{len(classes_of(self.classes))} classes, any number per image"
        if self.options.get("labels") == "numbers":
            labelled = f"numbers from {float(self.classes[0]):g} to {float(self.classes[-1]):g}"
        height, width = self.median_size
        return f"{self.root.name}: {counts} images; {labelled}; median {height} x {width} px ({self.layout})"


def folder_in(index_dir: str | Path, root: Path) -> Path:
    """Directory of everything derived from a folder: ``<index_dir>/<name>-<8 digits of its path's hash>``."""
    resolved = root.resolve()
    return Path(index_dir) / f"{resolved.name}-{hashlib.blake2b(str(resolved).encode(), digest_size=4).hexdigest()}"


def stored_at(path: Path) -> Path:
    """The file that holds the index of ``path``: of this version, or of an earlier one, which was JSON."""
    old = path.with_suffix(".json")
    return old if old.exists() and not path.exists() else path


def has_index(path: Path) -> bool:
    """Whether there is an index at ``path``, of this version or an earlier one."""
    return stored_at(path).exists()


def load_index(path: Path) -> FolderIndex:
    """Loads an index without looking at the images. Its columns stay in the file, which processes share.

    An index of an earlier version, which is JSON, is read too.

    Raises:
        UserError: The file is damaged, or of another version.
    """
    stored = stored_at(path)
    try:
        version, fields, digests = _from_columns(stored) if stored == path else (*read_json(stored), {})
        index = FolderIndex(path=path, **fields) if version == (VERSION if stored == path else JSON_VERSION) else None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
        OSError,
    ) as error:
        raise UserError(
            f"The index {stored} is damaged ({type(error).__name__}: {error}). Delete it; the same seed and images give the "
            "same split again."
        ) from error
    if index is None:
        raise UserError(
            f"The index {stored} has version {version}, but this program reads version {VERSION}. Delete it."
        )
    index.digests.update(digests)
    return index


def _from_columns(path: Path) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """The version of an index and, if it is the current one, its fields and the digests of its pixels."""
    columns = map_columns(path)
    about = json.loads(columns.pop("about").tobytes())
    version, names, digests = about.pop("version"), about.pop("splits"), about.pop("digests")
    if version != VERSION:
        return version, {}, {}
    tables: dict[str, dict[str, np.ndarray]] = {"files": {}, "unreadable": {}, "splits": {}}
    labels = columns.pop("labels")
    for name, column in columns.items():
        table, _, column_name = name.partition("-")
        tables[table][column_name] = column
    files, unreadable = (Records.from_columns(tables[table]) for table in ("files", "unreadable"))
    if not set(names) <= set(SPLIT_NAMES):
        raise ValueError(f"there are no splits {names}")
    numbers = {name: _within(tables["splits"][name], 0, len(files)) for name in names}
    num_labels = len(files) if about["classes"] else 0
    if len(_within(labels, -1, len(about["classes"]))) != num_labels:
        raise ValueError("there is not one label per file")
    fields = {
        **about,
        "root": Path(about["root"]),
        "dropped": [Dropped(**entry) for entry in about["dropped"]],
        "files": files,
        "unreadable": unreadable,
        "splits": {name: Selection(files.names, numbers[name]) for name in names},
        "file_labels": labels,
    }
    return version, fields, {key: value for key, value in digests.items() if re.fullmatch("[0-9a-f]{12}", value)}


def _within(column: np.ndarray, low: int, end: int) -> np.ndarray:
    """The column, if it holds integers from ``low`` up to but not including ``end``.

    Raises:
        ValueError: It does not.
    """
    if column.dtype.kind != "i" or column.ndim != 1 or (len(column) and not low <= column.min() <= column.max() < end):
        raise ValueError("a column is out of range")
    return column


def save_index(index: FolderIndex) -> None:
    """Writes an index to its ``path``, whole or not at all, and removes that of an earlier version.

    Raises:
        UserError: It cannot be written.
    """
    index.pixel_digest(PIXELS_VERSION)
    apart = ("path", "files", "unreadable", "splits", "file_labels")
    about = {"version": VERSION, "splits": list(index.splits), "root": str(index.root)}
    about = {name: value for name, value in vars(index).items() if name not in apart} | about
    columns = {
        "about": np.frombuffer(json.dumps(about, default=vars).encode(), dtype=np.uint8),  # vars: of the dataclasses
        "labels": index.file_labels,
        **{f"splits-{name}": chosen.numbers.astype(np.int32) for name, chosen in index.splits.items()},
    }
    for table, records in (("files", index.files), ("unreadable", index.unreadable)):
        columns |= {f"{table}-{name}": column for name, column in records.columns().items()}
    write_columns(index.path, columns)
    index.path.with_suffix(".json").unlink(missing_ok=True)


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
            f"The folder {index.root} was split with other options: {listed}. Pass the stored values, or delete "
            f"{stored_at(index.path)} to make a new split; weights and scores from the old split can't be compared with those "
            "from the new one."
        )
