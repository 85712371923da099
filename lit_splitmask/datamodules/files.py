"""What datamodules over files on disk share: a record of the files, stored pixels, statistics."""

import logging
from abc import abstractmethod
from pathlib import Path

from lit_splitmask.datamodules.base import ImageData, Source
from lit_splitmask.datamodules.budget import Budget
from lit_splitmask.datamodules.cache import Reader, build, choose_store_size
from lit_splitmask.datamodules.dataset import Samples
from lit_splitmask.datamodules.index import FolderIndex, load_index
from lit_splitmask.datamodules.statistics import FIXED, StatisticsKind, dataset_statistics
from lit_splitmask.datamodules.transforms import Augment
from lit_splitmask.errors import UserError

log = logging.getLogger(__name__)

_GIB = 2**30


class FileData(ImageData):
    """Images in files, of which a record is made once and kept under ``index_dir``; nothing is written beside the images.

    Args:
        root: The folder.
        image_size, batch_size, eval_batch_size, budget, num_epochs, augment, crop_ratio, label_share, seed, num_workers: see
            :class:`ImageData`.
        statistics: Mean and standard deviation for normalisation: ImageNet's, the train images' own, or 0.5 and 0.5.
        cache_gb: Disk space for decoded images, in GiB; 0 decodes them each time.
        index_dir: Where the record and decoded images are kept.

    Raises:
        UserError: A setting is out of its range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        *,
        batch_size: int = 256,
        eval_batch_size: int | None = None,
        budget: Budget | None = None,
        num_epochs: int = 100,
        augment: Augment | None = None,
        crop_ratio: float = 0.875,
        label_share: float = 1.0,
        seed: int = 0,
        num_workers: int | None = None,
        statistics: StatisticsKind = "imagenet",
        cache_gb: float = 8.0,
        index_dir: str = "runs/data",
    ) -> None:
        super().__init__(
            image_size=image_size,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            budget=budget,
            num_epochs=num_epochs,
            augment=augment,
            crop_ratio=crop_ratio,
            label_share=label_share,
            seed=seed,
            num_workers=num_workers,
        )
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
    def load_or_make(self) -> FolderIndex:
        """The record of the files, made the first time."""

    def prepare_data(self) -> None:
        """Makes the record, stores decoded images, measures pixels; each only the first time.

        Raises:
            UserError: The images cannot be used, or have changed.
        """
        index = self.load_or_make()
        store_size = self._store_size(index)
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
            read=Reader(index, self.image_size, self._store_size(index)),
            mean=mean,
            std=std,
        )

    @property
    def index(self) -> FolderIndex:
        """The record: files, classes, splits."""
        if self._index is None:
            raise UserError("The folder has not been read yet: call prepare_data() and setup() first.")
        return self._index

    def _store_size(self, index: FolderIndex) -> int | None:
        shapes = [record.shape for record in index.files.values()]
        return choose_store_size(shapes, self.image_size, self.cache_gb * _GIB)
