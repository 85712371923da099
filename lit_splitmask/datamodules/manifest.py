"""Images that a CSV file lists, with label, split and group."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.datamodules.image_folder import DEFAULT_SPLITS
from lit_splitmask.errors import UserError
from lit_splitmask.images.build_index import make_from_lists
from lit_splitmask.images.index import (
    FolderIndex,
    SplitOptions,
    check_options,
    check_unchanged,
    folder_in,
    load_index,
)
from lit_splitmask.images.layout import SPLIT_NAMES
from lit_splitmask.images.scan import Storing

COLUMNS = ("path", "label", "split", "group")


@dataclass(frozen=True)
class Rows:
    """A manifest, read.

    Attributes:
        files: Paths relative to the root, in the file's order.
        labels: Class name by path; empty where no image has one.
        splits: ``train``, ``val`` or ``test`` by path; empty where none is given.
        groups: Group by path; images without one are missing.
    """

    files: list[str]
    labels: dict[str, str]
    splits: dict[str, str]
    groups: dict[str, str]

    @property
    def digest(self) -> str:
        """Changes with anything that a row says; the order of the rows does not matter."""
        said = [sorted(self.files), *(sorted(column.items()) for column in (self.labels, self.splits, self.groups))]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


class Manifest(FileData):
    """Images listed in a CSV file: ``path``, and where they are known ``label``, ``split`` and ``group``.

    Images of one group (a patient, a site, a series of photos) never stand in two splits, no more than identical images do. A
    split that the file does not give is cut from the training images, class by class and in whole groups.

    Args:
        manifest: The CSV file, with a header.
        root: The folder that relative paths start from; by default that of the CSV file.
        image_size: Side of the crops.
        splits: How missing splits are cut; ``labels=none`` ignores the label column.
        **settings: Those of :class:`FileData` and :class:`ImageData`.

    Raises:
        UserError: A setting is out of its range.
    """

    def __init__(
        self,
        manifest: str,
        root: str | None = None,
        image_size: int = 224,
        *,
        splits: SplitOptions = DEFAULT_SPLITS,
        **settings: Any,
    ) -> None:
        super().__init__(str(Path(manifest).parent) if root is None else root, image_size, **settings)
        self.manifest = Path(manifest).expanduser()
        self.split_options = splits

    @property
    def record(self) -> Path:
        """Where the record of the files is kept."""
        return folder_in(self.index_dir, self.manifest) / "splits.json"

    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """Reads the manifest, scans its images and cuts missing splits, the first time.

        Raises:
            UserError: The manifest or its images cannot be used, or have changed.
        """
        rows = read_manifest(self.manifest, use_labels=self.split_options.labels != "none")
        if not self.record.exists():
            return self._make(rows, storing)
        index = load_index(self.record)
        check_options(index, self.split_options)
        if index.list_digest != rows.digest:
            raise UserError(
                f"The manifest {self.manifest} has changed since its images were split. Restore it, or delete {self.record} to "
                "make a new split; weights and selections made with the old one can't be compared then."
            )
        return check_unchanged(index, {file for file in rows.files if (self.root / file).exists()})

    def _make(self, rows: Rows, storing: Storing | None) -> FolderIndex:
        classes = sorted(set(rows.labels.values()))
        number = {name: label for label, name in enumerate(classes)}
        given: dict[str, list[str]] = {}
        for file, split in rows.splits.items():
            given.setdefault(split, []).append(file)
        return make_from_lists(
            self.root,
            self.record,
            self.split_options,
            files=sorted(rows.files),
            layout=f"{self.manifest.name}: {len(rows.files):,} rows",
            classes=classes,
            labels={file: number[name] for file, name in rows.labels.items()},
            given=given,
            groups=rows.groups,
            list_digest=rows.digest,
            storing=storing,
        )


def read_manifest(path: Path, *, use_labels: bool = True) -> Rows:
    """Reads a manifest.

    Raises:
        UserError: It is missing, lacks a column or a value, or names an image twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = [(name or "").strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = [{key: (value or "").strip() for key, value in row.items() if key in COLUMNS} for row in reader]
    except FileNotFoundError:
        raise UserError(f"The manifest {path} does not exist. Check the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"The manifest {path} is no CSV file in UTF-8 ({error}).") from error
    if "path" not in header or not rows:
        found = ", ".join(header) or "nothing"
        raise UserError(
            f"The manifest {path} needs a header with the column path (and label, split, group where they are known) and a row "
            f"for each image; it has {found} and {len(rows)} rows."
        )
    files = [row["path"].replace("\\", "/") for row in rows]
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice or "" in files:
        raise UserError(
            f"The manifest {path} names {twice[0] or 'no path'} in more than one row: give each image one row."
            if twice
            else f"Row {files.index('') + 2} of the manifest {path} has no path."
        )

    def column(name: str) -> dict[str, str]:
        return {file: row[name] for file, row in zip(files, rows, strict=True) if row.get(name)}

    labels = column("label") if use_labels else {}
    splits = {file: name.lower() for file, name in column("split").items()}
    unknown = next(((file, name) for file, name in splits.items() if name not in SPLIT_NAMES), None)
    if unknown is not None:
        raise UserError(f"The manifest {path} gives {unknown[0]} the split {unknown[1]!r}: use train, val or test.")
    for name, given in (("label", labels), ("split", splits)):
        if given and len(given) < len(files):
            missing = next(file for file in files if file not in given)
            raise UserError(
                f"The manifest {path} gives some images a {name}, but not {missing}: give all of them one, or none."
            )
    return Rows(files, labels, {file: SPLIT_NAMES[name] for file, name in splits.items()}, column("group"))
