"""Images in shards, on a disk or in a bucket."""

from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from lit_splitmask.datamodules.checks import check_counts
from lit_splitmask.datamodules.crop_data import CropData
from lit_splitmask.datamodules.settings import CropSettings, Settings
from lit_splitmask.images.cache import STORE_FACTORS
from lit_splitmask.images.names import Selection
from lit_splitmask.images.shards import ShardPlace, ShardReader, ShardRecord, shard_order
from lit_splitmask.loading.sampler import WrapAroundSampler
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

_GIB = 2**30


class Shards(CropData):
    """Images in shards that ``lit-splitmask shard`` wrote, in a folder or in a bucket. Needs litdata (extra ``stream``).

    Order, crops, budget and resuming are those of the other datamodules: a function of the seed and the optimizer step, the same
    on any number of processes and workers. Only the order of a pass differs: images come from ``shuffle_shards`` shards at a
    time, so that the first steps do not wait for all of them. Each node fetches every shard.

    Args:
        root: The folder of the shards, or its address: ``s3://bucket/folder``, ``gs://…`` or anything else that litdata reads.
        image_size: Side of the crops, in pixels.
        shuffle_shards: Number of shards among whose images the order is random.
        cache_gb: Disk space for copies of the remote shards of a split, in GiB. If they do not fit, none is copied, and each
            image is fetched when it is needed.
        index_dir: Folder of these copies.
        storage_options: What litdata takes to reach the bucket, such as ``{"endpoint_url": "https://…"}``.
        **settings: Settings of :class:`CropData`, :class:`JointData` and :class:`ImageData`.

    Raises:
        UserError: ``shuffle_shards`` is less than 1, or a setting of :class:`CropData` or :class:`ImageData` is out of range.

    Example:
        >>> from lit_splitmask.datamodules import Shards
        >>> data = Shards("s3://bucket/photos", image_size=32, batch_size=8, num_workers=0)
        >>> data.root, data.crop_sizes
        ('s3://bucket/photos', [32])
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        *,
        shuffle_shards: int = 16,
        cache_gb: float = 100.0,
        index_dir: str = "runs/data",
        storage_options: dict[str, Any] | None = None,
        **settings: Settings[CropSettings],
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        check_counts(shuffle_shards=shuffle_shards)
        self.root, self.shuffle_shards, self.cache_gb = root, shuffle_shards, cache_gb
        self.place = ShardPlace(root, f"{index_dir}/shards", storage_options)
        self._record: ShardRecord | None = None

    def prepare_data(self) -> None:
        """Checks that the shards can be read.

        Raises:
            UserError: They cannot, or litdata is not installed.
        """
        self.place.read_record()

    def open_source(self) -> Source:
        """Opens the shards; no image is read yet.

        Raises:
            UserError: They cannot be read, or litdata is not installed.
        """
        record = self._record = self.place.read_record()
        splits = {
            name: Samples(Selection(record.names, split.numbers), split.labels, numbers=split.numbers)
            for name, split in record.splits.items()
        }
        if getattr(getattr(self.trainer, "lightning_module", None), "needs_labels", False):
            splits = {name: samples.labelled() for name, samples in splits.items()}
        window = self.given_window or record.window
        reader = ShardReader(
            self.place,
            record,
            draft_size=round(STORE_FACTORS[0] * self.image_size),
            cache_bytes=self.cache_gb * _GIB,
            window=window,
        )
        order = record.by_name
        predict = Samples(Selection(record.names, order), np.full(len(order), -1), numbers=order)
        return Source(splits, predict, record.class_names, reader, record.mean, record.std, window=window)

    def train_dataloader(self) -> DataLoader:
        """One trainer epoch of augmented images, starting at the trainer's global step."""
        return self._by_shards(super().train_dataloader())

    def fitting_dataloader(self, num_crops: int | None = None) -> DataLoader:
        """Augmented training images for this process alone, outside training: to fit a tokenizer, or to time steps.

        Args:
            num_crops: Smallest number of crops, from several passes if necessary; None for one crop of each image.
        """
        return self._by_shards(super().fitting_dataloader(num_crops))

    def _by_shards(self, loader: DataLoader) -> DataLoader:
        """A loader that reads a few shards at a time; of two kinds of images (joint training), or balanced, it reads all."""
        if isinstance(loader.sampler, WrapAroundSampler) and not loader.sampler.is_balanced:
            loader.sampler.permute = partial(shard_order, shards=self._shard_of_each(), together=self.shuffle_shards)
        return loader

    def _shard_of_each(self) -> np.ndarray:
        """The shard of each training image that is used."""
        assert self._record is not None
        stored, numbers = self._record.splits["train"], self.train_samples.numbers
        assert numbers is not None
        return np.repeat(np.arange(len(stored.shards)), stored.shards)[numbers - stored.start]
