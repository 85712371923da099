"""The user's own image folder."""

import logging
from pathlib import Path

from lit_splitmask.datamodules.base import ImageData, Source
from lit_splitmask.datamodules.budget import Budget
from lit_splitmask.datamodules.cache import Reader, build, choose_store_size
from lit_splitmask.datamodules.dataset import Samples
from lit_splitmask.datamodules.index import FolderIndex, SplitOptions, folder_in, load_index, load_or_make
from lit_splitmask.datamodules.statistics import FIXED, StatisticsKind, dataset_statistics
from lit_splitmask.datamodules.transforms import Augment
from lit_splitmask.errors import UserError

log = logging.getLogger(__name__)

DEFAULT_SPLITS = SplitOptions()
_GIB = 2**30


class ImageFolder(ImageData):
    """Images in a folder: split folders with classes inside, class folders, or images without labels.

    The splits are made once and kept under ``index_dir``; nothing is ever written into the image folder.

    Args:
        root: The folder.
        image_size: Side of the crops.
        batch_size: Images an optimizer step sees, over all processes and accumulated micro-batches.
        eval_batch_size: Images a process evaluates at once; None means ``batch_size``, at most 256.
        budget: How long to train; None for 300 passes over ImageNet, at most 5,000 over this folder.
        num_epochs: Trainer epochs that the budget is cut into.
        augment: Of training images; None for :class:`PretrainAugment` as it is.
        crop_ratio: Share of the short side that evaluation crops cover.
        label_share: Share of the training images that are used, the same in each class, at least one each.
        seed: Of order, augmentation and the share of labels; that of the splits is among ``splits``.
        num_workers: Processes that read images; None for one less than the cores, at most 8.
        statistics: Mean and standard deviation for normalisation: ImageNet's, the train images' own, or 0.5 and 0.5.
        splits: How the folder is read and split.
        cache_gb: Disk space for decoded images, in GiB; 0 decodes them each time.
        index_dir: Where splits and decoded images are kept.

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
        splits: SplitOptions = DEFAULT_SPLITS,
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
        self.split_options = splits
        self.cache_gb = cache_gb
        self.index_dir = Path(index_dir)
        self._index: FolderIndex | None = None

    def prepare_data(self) -> None:
        """Scans and splits the folder, stores decoded images, measures pixels; each only the first time.

        Raises:
            UserError: The folder cannot be used, has changed, or was split with other options.
        """
        index = load_or_make(self.root, self.index_dir, self.split_options)
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
        path = folder_in(self.index_dir, self.root) / "splits.json"
        if not path.exists():
            raise UserError(f"The folder {self.root} has not been split yet ({path} is missing): call prepare_data().")
        index = self._index = load_index(path)
        splits = {name: _samples(index, files) for name, files in index.splits.items()}
        mean, std = dataset_statistics(index) if self.statistics == "dataset" else FIXED[self.statistics]
        return Source(
            splits=splits,
            predict=splits["test"] if "test" in splits else _samples(index, list(index.files)),
            class_names=index.classes,
            read=Reader(index, self.image_size, self._store_size(index)),
            mean=mean,
            std=std,
        )

    @property
    def index(self) -> FolderIndex:
        """The record of the folder: files, classes, splits."""
        if self._index is None:
            raise UserError("The folder has not been read yet: call prepare_data() and setup() first.")
        return self._index

    def _store_size(self, index: FolderIndex) -> int | None:
        shapes = [record.shape for record in index.files.values()]
        return choose_store_size(shapes, self.image_size, self.cache_gb * _GIB)


def _samples(index: FolderIndex, files: list[str]) -> Samples:
    return Samples(files, index.labels(files))
