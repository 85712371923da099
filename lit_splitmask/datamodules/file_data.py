"""What datamodules over files on disk share: a record of the files, stored pixels, statistics."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.datamodules.crop_data import CropData
from lit_splitmask.errors import UserError
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.cache import Reader, choose_store_size
from lit_splitmask.images.cache_writer import StoreWhileScanning, build
from lit_splitmask.images.index import FolderIndex, SplitOptions, folder_in, load_index
from lit_splitmask.images.scan import Storing
from lit_splitmask.images.statistics import FIXED, StatisticsKind, dataset_statistics
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)

_GIB = 2**30
_SEPARATOR = "//"  # which no relative path holds
_POOL = "pool.json"
_OF_POOLS = SplitOptions(labels="none", val_share=0.0, test_share=0.0)


class PooledReader:
    """Reads the images of several folders.

    Args:
        readers: Those of the folders; the names of images of the first stand alone, those of the others follow their number.
    """

    def __init__(self, readers: Sequence[Callable[[str], np.ndarray]]) -> None:
        self.readers = readers

    def __call__(self, name: str) -> np.ndarray:
        """An image, (H, W, 3) uint8.

        Raises:
            DecodeError: It is gone or damaged.
        """
        number, separator, file = name.partition(_SEPARATOR)
        return self.readers[int(number)](file) if separator else self.readers[0](name)


class FileData(CropData):
    """Images in files, of which a record is made once and kept under ``index_dir``; nothing is written beside the images.

    Args:
        root: The folder.
        image_size: Side of the crops.
        pool: Folders of more images to pre-train on; their labels do not count. An image with the same pixels as one of val
            or test is left out.
        statistics: Mean and standard deviation for normalisation: ImageNet's, the train images' own, or 0.5 and 0.5.
        cache_gb: Disk space for decoded images, in GiB, of each folder; 0 decodes them each time.
        index_dir: Where the record and decoded images are kept.
        **settings: Those of :class:`CropData` and :class:`ImageData`.

    Raises:
        UserError: A setting is out of its range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        *,
        pool: Sequence[str] = (),
        statistics: StatisticsKind = "imagenet",
        cache_gb: float = 8.0,
        index_dir: str = "runs/data",
        **settings: Any,
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        self.root = Path(root).expanduser()
        self._pool = [Path(folder).expanduser() for folder in pool]
        self.statistics: StatisticsKind = statistics
        self.cache_gb = cache_gb
        self.index_dir = Path(index_dir)
        self._index: FolderIndex | None = None

    @property
    def pool(self) -> list[Path]:
        """Folders of more images to pre-train on."""
        return self._pool

    @property
    @abstractmethod
    def record(self) -> Path:
        """Where the record of the files is kept."""

    @abstractmethod
    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """The record of the files, made the first time; if images are decoded for it, ``storing`` gets them."""

    def prepare_data(self) -> None:
        """Makes the record, stores decoded images, measures pixels; each only the first time.

        Raises:
            UserError: The images cannot be used, or have changed.
        """
        index = self._store(self.record.parent, self.load_or_make)
        short = min(index.median_size) if index.files else self.image_size
        if short < self.image_size:
            log.info(
                "The images are small (short side %d px in the median): crops of %d px enlarge them.",
                short,
                self.image_size,
            )
        for root in self.pool:
            load_or_make_pool = partial(load_or_make, root, self.index_dir, _OF_POOLS, name=_POOL)
            self._store(folder_in(self.index_dir, root), load_or_make_pool)
        if self.statistics == "dataset":
            dataset_statistics(index)

    def _store(self, folder: Path, load_or_make: Callable[[Storing], FolderIndex]) -> FolderIndex:
        """Makes a folder's record and stores its images."""
        with StoreWhileScanning(folder, self.image_size, self.cache_gb * _GIB) as storing:
            index = load_or_make(storing)
            storing.keep(index)
        store_size = self.store_size(index)
        if store_size is not None:
            build(index, store_size)
        elif self.cache_gb > 0:
            log.warning("Decoded images do not fit into cache_gb=%g, and are decoded each time.", self.cache_gb)
        return index

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` has prepared.

        Raises:
            UserError: It has not run.
        """
        if not self.record.exists():
            raise UserError(
                f"The folder {self.root} has not been read yet ({self.record} is missing): call prepare_data()."
            )
        index = self._index = load_index(self.record)
        splits = {name: Samples(files, index.labels(files)) for name, files in index.splits.items()}
        mean, std = dataset_statistics(index) if self.statistics == "dataset" else FIXED[self.statistics]
        everything = list(index.files)
        predict = splits["test"] if "test" in splits else Samples(everything, index.labels(everything))
        read: Callable[[str], np.ndarray] = self._reader(index)
        if self.pool:
            splits["train"], pools = self._with_pool(index, splits["train"])
            read = PooledReader([read, *map(self._reader, pools)])
        return Source(splits, predict, index.classes, read, mean, std)

    def _reader(self, index: FolderIndex) -> Reader:
        return Reader(index, self.image_size, self.store_size(index))

    def _with_pool(self, index: FolderIndex, train: Samples) -> tuple[Samples, list[FolderIndex]]:
        """The training images and those of the pool, which are named by the number of their reader too."""
        held_out = {index.files[file].hash for name in ("val", "test") for file in index.splits.get(name, [])}
        files, pools = list(train.files), []
        for number, root in enumerate(self.pool, start=1):
            pool = load_index(folder_in(self.index_dir, root) / _POOL)
            kept = [file for file, record in pool.files.items() if record.hash not in held_out]
            if len(kept) < len(pool.files):
                log.warning(
                    "%d images of %s are left out: they are identical to images of val or test.",
                    len(pool.files) - len(kept),
                    root,
                )
            files += [f"{number}{_SEPARATOR}{file}" for file in kept]
            pools.append(pool)
        return Samples(files, [*train.labels.tolist(), *[-1] * (len(files) - len(train))]), pools

    @property
    def index(self) -> FolderIndex:
        """The record: files, classes, splits."""
        if self._index is None:
            raise UserError("The folder has not been read yet: call prepare_data() and setup() first.")
        return self._index

    def store_size(self, index: FolderIndex) -> int | None:
        """Short side at which decoded images are stored; None where they are decoded each time."""
        shapes = [record.shape for record in index.files.values()]
        return choose_store_size(shapes, self.image_size, self.cache_gb * _GIB)
