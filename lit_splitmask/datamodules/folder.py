"""The user's own image folder."""

from pathlib import Path

from lit_splitmask.datamodules.budget import Budget
from lit_splitmask.datamodules.files import FileData
from lit_splitmask.datamodules.index import FolderIndex, SplitOptions, folder_in, load_or_make
from lit_splitmask.datamodules.statistics import StatisticsKind
from lit_splitmask.datamodules.transforms import Augment

DEFAULT_SPLITS = SplitOptions()


class ImageFolder(FileData):
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
            root,
            image_size,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            budget=budget,
            num_epochs=num_epochs,
            augment=augment,
            crop_ratio=crop_ratio,
            label_share=label_share,
            seed=seed,
            num_workers=num_workers,
            statistics=statistics,
            cache_gb=cache_gb,
            index_dir=index_dir,
        )
        self.split_options = splits

    @property
    def record(self) -> Path:
        """Where the record of the files is kept."""
        return folder_in(self.index_dir, self.root) / "splits.json"

    def load_or_make(self) -> FolderIndex:
        """Scans and splits the folder, the first time.

        Raises:
            UserError: The folder cannot be used, has changed, or was split with other options.
        """
        return load_or_make(self.root, self.index_dir, self.split_options)
