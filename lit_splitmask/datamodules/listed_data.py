"""Datasets that say themselves, in lists, which images they have."""

import logging
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.datamodules.paper import Facts
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines
from lit_splitmask.images.decode import DecodeError, read_shape
from lit_splitmask.images.index import FolderIndex, folder_in, load_index, save_index
from lit_splitmask.images.scan import FileRecord, Storing, in_threads
from lit_splitmask.images.split import cut
from lit_splitmask.loading.budget import MAX_PASSES

log = logging.getLogger(__name__)

MOST_UNREADABLE = 0.02
"""Share of the listed images that may be unreadable."""


@dataclass(frozen=True)
class Listing:
    """What a dataset's lists say.

    Attributes:
        train, test: Label by file, relative to the root; -1 without labels.
        class_names: By label; empty without labels.
    """

    train: dict[str, int]
    test: dict[str, int]
    class_names: list[str]


class ListedData(FileData):
    """A published dataset in its official layout, with its official splits.

    The official test images (or validation images, where those of the test have no labels) are the test split, as in the
    paper. Training uses all official training images, unless ``val_share`` sets some aside to choose checkpoints with.
    The lists are trusted: files are not searched for duplicates, and are known by their size and time of change.

    Args:
        root: The folder that holds the dataset.
        image_size: Side of the crops.
        val_share: Share of the training images that become the validation split, the same in each class.
        subset_list: A file that names the training images to use, one a line, by file name or by path relative to the
            root, such as ImageNet's published 1 % and 10 % lists.
        download: Fetch the files, where a maintained loader still has a source.
        **settings: Those of :class:`FileData` and :class:`ImageData`; the default budget is Table 3's.

    Raises:
        UserError: A setting is out of its range.
    """

    facts: ClassVar[Facts]

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        *,
        val_share: float = 0.0,
        subset_list: str | None = None,
        download: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(root, image_size, **settings)
        if self.pool:
            raise UserError(
                f"{type(self).__name__} takes no data.pool: its images are known by size and time only, so that copies of "
                "test images among those of the pool would not be found. Pre-train on its folder with --data ImageFolder."
            )
        if not 0 <= val_share < 1:
            raise UserError(
                f"val_share={val_share} must be at least 0 and less than 1, so that images are left to train on."
            )
        self.val_share = val_share
        self.subset_list = subset_list
        self.download = download

    @abstractmethod
    def listing(self) -> Listing:
        """Reads the dataset's lists.

        Raises:
            UserError: A list is missing or damaged.
        """

    def fetch(self) -> None:
        """Fetches the dataset.

        Raises:
            UserError: There is no source that a program may use.
        """
        raise UserError(f"{self.facts.title} cannot be downloaded by a program. {self.facts.where}")

    @property
    def record(self) -> Path:
        """Where the record of the files is kept."""
        subset = "" if self.subset_list is None else f"-{Path(self.subset_list).stem}"
        return (
            folder_in(self.index_dir, self.root) / f"{type(self).__name__.lower()}{subset}-val{self.val_share:g}.json"
        )

    @property
    def table_passes(self) -> float | None:
        """Table 3's passes; None for a part of the training images, whose passes follow from the rule."""
        whole = self.label_share == 1 and self.subset_list is None and self.val_share == 0
        return float(self.facts.passes) if whole else None

    @property
    def max_passes(self) -> float:
        """Cap on the passes of the default budget: small classification sets only."""
        return MAX_PASSES if self.facts.capped else inf

    def require(self, *names: str) -> list[Path]:
        """Paths under the root that must exist.

        Raises:
            UserError: One does not; it says where the dataset comes from.
        """
        missing = [name for name in names if not (self.root / name).exists()]
        if missing:
            found = "does not exist" if not self.root.is_dir() else f"lacks {', '.join(missing)}"
            raise UserError(
                f"{self.root} {found}, so it does not hold {self.facts.title} as published. {self.facts.where}"
            )
        return [self.root / name for name in names]

    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """The record of the listed files; it is made anew whenever the lists or the files have changed.

        Raises:
            UserError: Lists or images are missing.
        """
        if self.download:
            self.fetch()
        listing = self._subset(self.listing())
        problem = self.facts.explain_counts(len(listing.train), len(listing.test), len(listing.class_names))
        if problem is not None and self.subset_list is None:
            log.warning("%s Training goes on with what is there.", problem)
        stored = load_index(self.record) if self.record.exists() else None
        known = {} if stored is None else stored.files
        index = _index(self.root.resolve(), self.record, listing, known, val_share=self.val_share)
        if index != stored:
            save_index(index)
        return index

    def _subset(self, listing: Listing) -> Listing:
        if self.subset_list is None:
            return listing
        wanted = set(read_lines(Path(self.subset_list)))
        chosen = {
            file: label for file, label in listing.train.items() if file in wanted or Path(file).name in wanted
        }  # fmt: skip
        if len(chosen) != len(wanted):
            raise UserError(
                f"{self.subset_list} names {len(wanted):,} images, of which {len(chosen):,} are training images of "
                f"{self.facts.title}: give one file name or relative path a line."
            )
        return Listing(chosen, listing.test, listing.class_names)


def _index(
    root: Path, path: Path, listing: Listing, known: Mapping[str, FileRecord], *, val_share: float
) -> FolderIndex:
    labels = listing.train | listing.test
    records = _read_headers(root, sorted(labels), known)
    files = {file: record for file, record in records.items() if record.hash}
    train = [file for file in sorted(listing.train) if file in files]
    hashes = {file: file for file in files}  # the lists are trusted: no two files are taken for the same image
    splits = cut(train, hashes, labels, shares={"val": val_share}, seed=0) if val_share else {"train": train}
    splits["test"] = [file for file in sorted(listing.test) if file in files]
    return FolderIndex(
        root=root,
        path=path,
        options={"val_share": val_share},
        layout="as published",
        classes=listing.class_names,
        class_level=0,
        files=files,
        unreadable={file: record for file, record in records.items() if not record.hash},
        splits={name: splits[name] for name in ("train", "val", "test") if splits.get(name)},
        given_labels={file: label for file, label in labels.items() if file in files} if listing.class_names else {},
    )


def _read_headers(root: Path, files: Sequence[str], known: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    headers = in_threads(lambda file: _header(root / file, known.get(file)), files, f"Reading {root.name}")
    records = dict(zip(files, headers, strict=True))
    absent = [file for file, record in records.items() if record.size < 0]
    if absent:
        raise UserError(
            f"{len(absent):,} of the {len(files):,} images that the lists name are not in {root}, such as "
            f"{', '.join(absent[:3])}: unpack the rest, or pass the folder that holds them."
        )
    unreadable = [file for file, record in records.items() if not record.hash]
    for file in unreadable:
        log.warning("The image %s is damaged, and is left out.", root / file)
    if len(unreadable) > MOST_UNREADABLE * len(files):
        raise UserError(f"{len(unreadable):,} of the {len(files):,} images in {root} are damaged: unpack them again.")
    return records


def _header(path: Path, known: FileRecord | None) -> FileRecord:
    """Size and shape of an image, without decoding it; its size and time of change stand for its content.

    A file that has not changed since it was ``known`` is not opened.
    """
    try:
        status = os.stat(path)
    except OSError:
        return FileRecord(-1, 0, "", (0, 0))
    if known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return known
    try:
        shape = read_shape(path)
    except DecodeError:
        return FileRecord(status.st_size, status.st_mtime_ns, "", (0, 0))
    return FileRecord(status.st_size, status.st_mtime_ns, f"{status.st_size}-{status.st_mtime_ns}", shape)
