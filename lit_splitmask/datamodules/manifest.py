"""Images listed in a CSV file, with labels, splits and groups."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_splitmask.datamodules.own_data import OwnData
from lit_splitmask.errors import UserError
from lit_splitmask.images.build_index import make_from_lists
from lit_splitmask.images.index import (
    FolderIndex,
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
    """The rows of a manifest.

    Attributes:
        files: Paths relative to the root, in the order of the file.
        labels: Class name by path; empty without labels.
        splits: ``train``, ``val`` or ``test`` by path; empty if no splits are given.
        groups: Group by path, for the images that have one.
    """

    files: list[str]
    labels: dict[str, str]
    splits: dict[str, str]
    groups: dict[str, str]

    @property
    def digest(self) -> str:
        """Hash of all rows, in any order."""
        content = [sorted(self.files), *(sorted(column.items()) for column in (self.labels, self.splits, self.groups))]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


class Manifest(OwnData):
    """Images listed in a CSV file with the columns ``path`` and, if known, ``label``, ``split`` and ``group``.

    Images of one group (a patient, a site, a series of photos) stay in one split, as identical images do. Splits that the file
    does not give are cut from the training images, class by class and in whole groups.

    Args:
        manifest: The CSV file, with a header.
        root: The folder that relative paths start from; None for the folder of the CSV file.
        image_size: Side of the crops, in pixels.
        splits: How missing splits are cut; ``labels=none`` ignores the label column.
        pool: Folders of more images to pre-train on, without labels. Images with the same pixels as one of val or test are
            left out.
        **settings: Settings of :class:`FileData`, :class:`CropData` and :class:`ImageData`.

    Raises:
        UserError: A setting of :class:`CropData` or :class:`ImageData` is out of range.

    Example:
        >>> from lit_splitmask.datamodules import Manifest
        >>> data = Manifest("list.csv", image_size=32, batch_size=8, num_workers=0)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> data.class_names
        ['disc', 'square', 'stripes']
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["label"].shape
        (torch.Size([8, 3, 32, 32]), torch.Size([8]))
    """

    def __init__(
        self,
        manifest: str,
        root: str | None = None,
        image_size: int = 224,
        **settings: Any,
    ) -> None:
        super().__init__(str(Path(manifest).parent) if root is None else root, image_size, **settings)
        self.manifest = Path(manifest).expanduser()

    @property
    def record(self) -> Path:
        """Path of the index."""
        return folder_in(self.index_dir, self.manifest) / "splits.json"

    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """The index of the images; the first call scans them and cuts missing splits.

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
                "make a new split; results of the old split cannot be compared with those of the new one."
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
        UserError: The file is missing or not CSV in UTF-8, lacks the column ``path``, rows or a value, lists an image twice, or
            has a split other than train, val and test.
    """
    rows = _read_rows(path)
    files = [row["path"].replace("\\", "/") for row in rows]
    if "" in files:
        raise UserError(f"Row {files.index('') + 2} of the manifest {path} has no path.")
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        raise UserError(f"The manifest {path} lists {twice[0]} in more than one row: give each image one row.")

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
                f"The manifest {path} gives some images a {name}, but not {missing}: give every image one, or none."
            )
    return Rows(files, labels, {file: SPLIT_NAMES[name] for file, name in splits.items()}, column("group"))


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The known columns of each row, stripped; at least one row, and the column ``path``."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = [(name or "").strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = [{key: (value or "").strip() for key, value in row.items() if key in COLUMNS} for row in reader]
    except FileNotFoundError:
        raise UserError(f"The manifest {path} does not exist. Check the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"The manifest {path} is not a CSV file in UTF-8 ({error}).") from error
    if "path" not in header or not rows:
        found = ", ".join(header) or "nothing"
        raise UserError(
            f"The manifest {path} needs a header with the column path (and label, split, group if known) and one row per image; "
            f"it has {found} and {len(rows)} rows."
        )
    return rows
