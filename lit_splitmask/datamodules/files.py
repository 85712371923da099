"""What datamodules over files on disk share: a record of the files, stored pixels, statistics."""

import logging
from abc import abstractmethod
from pathlib import Path
from typing import Any

from lit_splitmask.datamodules.base import ImageData, Source
from lit_splitmask.datamodules.cache import Reader, StoreWhileScanning, build, choose_store_size
from lit_splitmask.datamodules.dataset import Samples
from lit_splitmask.datamodules.index import FolderIndex, load_index
from lit_splitmask.datamodules.scan import Storing
from lit_splitmask.datamodules.statistics import FIXED, StatisticsKind, dataset_statistics
from lit_splitmask.errors import UserError

log = logging.getLogger(__name__)

_GIB = 2**30


class FileData(ImageData):
    """Images in files, of which a record is made once and kept under ``index_dir``; nothing is written beside the images.

    Args:
        root: The folder.
        image_size: Side of the crops.
        statistics: Mean and standard deviation for normalisation: ImageNet's, the train images' own, or 0.5 and 0.5.
        cache_gb: Disk space for decoded images, in GiB; 0 decodes them each time.
        index_dir: Where the record and decoded images are kept.
        **settings: Those of :class:`ImageData`.

    Raises:
        UserError: A setting is out of its range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        *,
        statistics: StatisticsKind = "imagenet",
        cache_gb: float = 8.0,
        index_dir: str = "runs/data",
        **settings: Any,
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        self.root = Path(root).expanduser()
        self.statistics: StatisticsKind = statistics
        self.cache_gb = cache_gb
        self.index_dir = Path(index_dir)
        self._index: FolderIndex | None = None

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
        with StoreWhileScanning(self.record.parent, self.image_size, self.cache_gb * _GIB) as storing:
            index = self.load_or_make(storing)
            storing.keep(index)
        store_size = self.store_size(index)
        if store_size is not None:
            build(index, store_size)
        elif self.cache_gb > 0:
            log.warning("Decoded images do not fit into cache_gb=%g, and are decoded each time.", self.cache_gb)
        if self.statistics == "dataset":
            dataset_statistics(index)

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
        return Source(
            splits=splits,
            predict=splits["test"] if "test" in splits else Samples(everything, index.labels(everything)),
            class_names=index.classes,
            read=Reader(index, self.image_size, self.store_size(index)),
            mean=mean,
            std=std,
        )

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
