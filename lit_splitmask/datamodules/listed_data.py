"""The base of the published datasets, whose own lists name their images."""

import logging
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import ClassVar

import numpy as np

from lit_splitmask.datamodules.facts import Facts
from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.datamodules.lists import Listing, find_folder
from lit_splitmask.datamodules.paper import TABLE_3
from lit_splitmask.datamodules.settings import FileSettings, Settings
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines
from lit_splitmask.images.decode import DecodeError, read_shape
from lit_splitmask.images.index import FolderIndex, folder_in, has_index, load_index, save_index
from lit_splitmask.images.records import Records
from lit_splitmask.images.scan import FileRecord, Storing, in_threads
from lit_splitmask.images.split import SPLIT_NAMES, cut
from lit_splitmask.loading.budget import MAX_PASSES
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)

MAX_UNREADABLE = 0.02
"""Largest share of the listed images that may be unreadable."""


class ListedData(FileData):
    """A published dataset in its official layout, with its official splits.

    The test split is the official test images, or the official validation images if the test images have no public labels, as
    in the paper. Training uses all official training images, unless ``val_share`` sets some aside to choose checkpoints.
    Files are not searched for duplicates; their size and modification time stand for their content. So there is no ``pool``,
    in which copies of test images would not be found; :class:`ImageFolder` has one.

    Args:
        root: The folder that holds the dataset.
        image_size: Side of the crops, in pixels.
        val_share: Share of the training images that become the validation split, the same in each class.
        subset_list: A file that names the training images to use, one per line, by file name or by path relative to the
            root, such as ImageNet's published 1 % and 10 % lists.
        download: Whether to download the files first, for datasets that have an automatic download.
        **settings: Settings of :class:`FileData`, :class:`CropData` and :class:`ImageData`. The default budget is that of
            Table 3, or follows the paper's rule for other datasets and for a part of the training images.

    Attributes:
        facts: Title, expected counts, and where to get the files.
        recipes: Names of its recipes.
        markers: Files that show that a folder holds the dataset: all files of any one group exist. A pattern with an asterisk is
            for images. Empty if the folder can be read without the dataset's lists.

    Raises:
        UserError: ``val_share`` is outside [0, 1), or a setting of :class:`CropData` or :class:`ImageData` is out of range.
    """

    facts: ClassVar[Facts]
    recipes: ClassVar[tuple[str, ...]] = ()
    markers: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        *,
        val_share: float = 0.0,
        subset_list: str | None = None,
        download: bool = False,
        **settings: Settings[FileSettings],
    ) -> None:
        super().__init__(root, image_size, **settings)
        if not 0 <= val_share < 1:
            raise UserError(
                f"val_share={val_share} must be at least 0 and less than 1: some images must remain to train on."
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
        """Downloads the dataset.

        Raises:
            UserError: It has no automatic download, or the download failed.
        """
        raise UserError(f"{self.facts.title} has no automatic download. {self.facts.where}")

    @property
    def record(self) -> Path:
        """Path of the index."""
        subset = "" if self.subset_list is None else f"-{Path(self.subset_list).stem}"
        return folder_in(self.index_dir, self.root) / f"{type(self).__name__.lower()}{subset}-val{self.val_share:g}.npz"

    @property
    def table_passes(self) -> float | None:
        """Passes of Table 3; None for the rule: for other datasets, and for a part of the training images."""
        is_whole = self.label_share == 1 and self.subset_list is None and self.val_share == 0
        return TABLE_3.get(self.facts.title) if is_whole else None

    @property
    def max_passes(self) -> float:
        """Largest number of passes of the default budget; no limit except for small classification sets."""
        return MAX_PASSES if self.facts.capped else inf

    def find(self, *names: str) -> str:
        """The folder that holds files of the dataset: the root, or one up to two levels below it.

        Returns:
            Its path relative to the root, empty or with a slash at its end.

        Raises:
            UserError: There is none; the message explains where to get the dataset.
        """
        folder = find_folder(self.root, *names)
        if folder is None:
            missing = [name for name in names if not (self.root / name).exists()]
            found = "does not exist" if not self.root.is_dir() else f"lacks {', '.join(missing)}"
            raise UserError(
                f"{self.root} {found}, so it is not {self.facts.title} in its official layout. {self.facts.where}"
            )
        return folder

    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """The index of the listed files, made again if the lists or the files have changed.

        Raises:
            UserError: Lists or images are missing or damaged, or the download failed.
        """
        if self.download:
            self.fetch()
        listing = self._subset(self.listing())
        problem = self.facts.explain_counts(len(listing.train), len(listing.test), len(listing.class_names))
        if problem is not None and self.subset_list is None:
            log.warning("%s Continuing with the images found.", problem)
        stored = load_index(self.record) if has_index(self.record) else None
        known = {} if stored is None else stored.files.as_dict()
        index = _index(self.root.resolve(), self.record, listing, known, val_share=self.val_share)
        if index != stored or not self.record.exists():  # one of an earlier version is rewritten
            save_index(index)
        return index

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` made.

        Raises:
            UserError: It has not run, or the module needs labels and they were not found.
        """
        source = super().open_source()
        if self.facts.labelled and not source.class_names and self.module_needs_labels:
            raise UserError(
                f"{self.facts.title} in {self.root} has no labels, which fine-tuning needs. {self.facts.where}"
            )
        return source

    def _subset(self, listing: Listing) -> Listing:
        if self.subset_list is None:
            return listing
        requested = set(read_lines(Path(self.subset_list)))
        chosen = {
            file: label for file, label in listing.train.items() if file in requested or Path(file).name in requested
        }  # fmt: skip
        if len(chosen) != len(requested):
            raise UserError(
                f"{self.subset_list} names {len(requested):,} images, of which {len(chosen):,} are training images of "
                f"{self.facts.title}: list training images only, one file name or relative path per line."
            )
        return Listing(chosen, listing.test, listing.class_names)


def _index(
    root: Path, path: Path, listing: Listing, known: Mapping[str, FileRecord], *, val_share: float
) -> FolderIndex:
    labels = listing.train | listing.test
    records = _read_headers(root, sorted(labels), known)
    files = {file: record for file, record in records.items() if record.hash}
    train = [file for file in sorted(listing.train) if file in files]
    hashes = {file: file for file in files}  # the lists are trusted: no two files count as the same image
    splits = cut(train, hashes, labels, shares={"val": val_share}, seed=0) if val_share else {"train": train}
    splits["test"] = [file for file in sorted(listing.test) if file in files]
    return FolderIndex(
        root=root,
        path=path,
        options={"val_share": val_share},
        layout="as published",
        classes=listing.class_names,
        class_level=0,
        files=Records.of(files),
        unreadable=Records.of({file: record for file, record in records.items() if not record.hash}),
        splits={name: splits[name] for name in SPLIT_NAMES if splits.get(name)},  # type: ignore[misc]
        file_labels=np.array([labels[file] for file in sorted(files)] if listing.class_names else [], dtype=np.int32),
        lists_labels=bool(listing.class_names),
    )


def _read_headers(root: Path, files: Sequence[str], known: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    headers = in_threads(lambda file: _header(f"{root}/{file}", known.get(file)), files, f"Reading {root.name}")
    records = dict(zip(files, headers, strict=True))
    absent = [file for file, record in records.items() if record.size < 0]
    if absent:
        raise UserError(
            f"{len(absent):,} of the {len(files):,} listed images are not in {root}, such as {', '.join(absent[:3])}: unpack the "
            "rest, or pass the folder that holds them."
        )
    unreadable = [file for file, record in records.items() if not record.hash]
    for file in unreadable:
        log.warning("The image %s is damaged and is left out.", root / file)
    if len(unreadable) > MAX_UNREADABLE * len(files):
        raise UserError(f"{len(unreadable):,} of the {len(files):,} images in {root} are damaged: unpack them again.")
    return records


def _header(path: str, known: FileRecord | None) -> FileRecord:
    """The record of an image from its header alone; its size and modification time stand for its content.

    A file that has not changed since it was ``known`` is not opened. A size of -1 means that the file does not exist.
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
