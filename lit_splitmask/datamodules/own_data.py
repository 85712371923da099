"""The base of datamodules over a user's own images: splits that are cut here, and folders of more images to pre-train on."""

import itertools
import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.datamodules.settings import FileSettings, Settings
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.cache import Reader
from lit_splitmask.images.index import FolderIndex, SplitOptions, folder_in, load_index
from lit_splitmask.images.names import Selection
from lit_splitmask.images.scan import Storing
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)

_SEPARATOR = "//"  # no relative path contains it
_POOL_INDEX = "pool.npz"
_POOL_SPLITS = SplitOptions(labels="none", layout="flat", val_share=0.0, test_share=0.0)
_DEFAULT_SPLITS = SplitOptions()


class PooledReader:
    """Reads the images of several folders.

    Args:
        readers: One reader per folder. Images of the first have plain names; the name of any other begins with the number of
            its reader. Numbers run through all folders.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = readers
        self._starts = [0, *itertools.accumulate(len(reader.names) for reader in readers)][:-1]

    def __call__(self, image: str | int) -> np.ndarray:
        """An image by its name or number, (H, W, 3) uint8.

        Raises:
            DecodeError: The file is missing or damaged.
        """
        if isinstance(image, int):
            number = bisect_right(self._starts, image) - 1
            return self.readers[number](image - self._starts[number])
        first, separator, file = image.partition(_SEPARATOR)
        return self.readers[int(first)](file) if separator else self.readers[0](image)


class OwnData(FileData):
    """Images that are split here, if they are not split yet, and more images to pre-train on.

    Args:
        root: The image folder.
        image_size: Side of the crops, in pixels.
        splits: How labels are found and missing splits are cut.
        pool: Folders of more images to pre-train on, without labels. Images with the same pixels as one of val or test are
            left out.
        **settings: Settings of :class:`FileData`, :class:`CropData` and :class:`ImageData`.

    Raises:
        UserError: A setting of :class:`CropData` or :class:`ImageData` is out of range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        *,
        splits: SplitOptions = _DEFAULT_SPLITS,
        pool: Sequence[str] = (),
        **settings: Settings[FileSettings],
    ) -> None:
        super().__init__(root, image_size, **settings)
        self.split_options = splits
        self._pool = [Path(folder).expanduser() for folder in pool]

    @property
    def pool(self) -> list[Path]:
        """Folders whose images are added to the training images without labels."""
        return self._pool

    def folders(self) -> list[tuple[Path, Callable[[Storing], FolderIndex]]]:
        """The folder of each index, and the function that loads or makes it: first the folder, then the pool."""

        def of_pool(root: Path) -> Callable[[Storing], FolderIndex]:
            return partial(load_or_make, root, self.index_dir, _POOL_SPLITS, name=_POOL_INDEX)

        return [*super().folders(), *((folder_in(self.index_dir, root), of_pool(root)) for root in self.pool)]

    def indexes(self) -> list[FolderIndex]:
        """The indexes of the folder and of the pool."""
        return [self.index, *(load_index(folder_in(self.index_dir, root) / _POOL_INDEX) for root in self.pool)]

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` made.

        Raises:
            UserError: It has not run.
        """
        source = super().open_source()
        if not self.pool:
            return source
        train, pools = self._with_pool(source.splits["train"])
        read = PooledReader([self.reader(index, source.window) for index in (self.index, *pools)])
        return replace(source, splits={**source.splits, "train": train}, read=read)

    def _with_pool(self, train: Samples) -> tuple[Samples, list[FolderIndex]]:
        """The training images followed by those of the pool, and the indexes of the pool."""
        splits, hashes = self.index.splits, self.index.files.hashes
        held_out = np.concatenate(
            [hashes[:0], *(hashes[splits[name].numbers] for name in ("val", "test") if name in splits)]
        )
        files, pools = list(train.files), []
        assert train.numbers is not None
        numbers, num_before = [train.numbers], len(hashes)
        for number, root in enumerate(self.pool, start=1):
            pool = load_index(folder_in(self.index_dir, root) / _POOL_INDEX)
            used = np.flatnonzero(~np.isin(pool.files.hashes, held_out))
            if len(used) < len(pool.files):
                num_left_out = len(pool.files) - len(used)
                log.warning(
                    "%d images of %s are left out: they are identical to images of val or test.", num_left_out, root
                )
            files += [f"{number}{_SEPARATOR}{file}" for file in Selection(pool.files.names, used)]
            numbers.append(used + num_before)
            num_before += len(pool.files)
            pools.append(pool)
        labels = [*train.labels.tolist(), *[-1] * (len(files) - len(train))]
        return Samples(files, labels, numbers=np.concatenate(numbers)), pools
