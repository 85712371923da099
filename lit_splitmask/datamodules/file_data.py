"""The base of datamodules over image files: their index, decoded images on disk, pixel statistics."""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lit_splitmask.datamodules.crop_data import CropData
from lit_splitmask.datamodules.settings import CropSettings, Settings
from lit_splitmask.errors import UserError
from lit_splitmask.files import local_folder
from lit_splitmask.images.cache import Reader, choose_store_size
from lit_splitmask.images.cache_writer import StoreWhileScanning, build
from lit_splitmask.images.index import FolderIndex, has_index, load_index
from lit_splitmask.images.scan import Storing
from lit_splitmask.images.statistics import FIXED, Colour, StatisticsKind, dataset_statistics
from lit_splitmask.images.tree import Tree, list_images
from lit_splitmask.images.window import Window
from lit_splitmask.loading.prediction import ShrinkingReader, examine_files, warn
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)

_GIB = 2**30


class FileData(CropData):
    """Images in files. Their index is made once, under ``index_dir``; nothing is written into the image folder.

    Args:
        root: The image folder.
        image_size: Side of the crops, in pixels.
        statistics: Mean and standard deviation for normalisation: ``imagenet``, ``dataset`` (measured on the training images)
            or ``half`` (0.5 and 0.5).
        cache_gb: Disk space for the decoded images of a folder, in GiB; 0 decodes images each time.
        index_dir: Folder of the index and the decoded images.
        **settings: Settings of :class:`CropData` and :class:`ImageData`.

    Raises:
        UserError: A setting of :class:`CropData` or :class:`ImageData` is out of range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        *,
        statistics: StatisticsKind = "imagenet",
        cache_gb: float = 8.0,
        index_dir: str = "runs/data",
        **settings: Settings[CropSettings],
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        self.root = local_folder(root)
        self.statistics: StatisticsKind = statistics
        self.cache_gb = cache_gb
        self.index_dir = Path(index_dir)
        self._index: FolderIndex | None = None
        self.fitted_file = self._file_for_fitted

    @property
    @abstractmethod
    def record(self) -> Path:
        """Path of the index."""

    @abstractmethod
    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """The index of the files, made on the first call; ``storing`` receives the images that are decoded for it."""

    def prediction_files(self) -> list[str]:
        """The images to predict, relative to the root: all of the folder, whatever its folders are called."""
        return list_images(self.root)

    def unread_files(self) -> Mapping[str, str]:
        """Images of the folder that are of a kind that is not read, such as HEIC, and their kind."""
        tree = Tree.read(self.root)
        for line in tree.describe_left_out():
            warn("Not read: %s.", line)
        return tree.unread_images()

    def open_for_prediction(self) -> Source:
        """Opens every image once, for prediction; nothing is split, and nothing is stored.

        Raises:
            UserError: There are no images, or none can be read.
        """
        files = examine_files(self.root, self.prediction_files(), self.unread_files(), self.given_window)
        samples = Samples(files.readable, [-1] * len(files.readable))
        mean, std = FIXED["imagenet"]  # trained weights have their own
        read = ShrinkingReader(files, self.image_size)
        return Source({}, samples, [], read, mean, std, files.problems, files.window)

    def folders(self) -> list[tuple[Path, Callable[[Storing], FolderIndex]]]:
        """The folder of each index, and the function that loads or makes it."""
        return [(self.record.parent, self.load_or_make)]

    def prepare_data(self) -> None:
        """Makes the index, stores decoded images and measures pixel statistics, each only the first time.

        Raises:
            UserError: The images cannot be used, or have changed.
        """
        if self.predicts_only:
            return
        indexes = [self._load_or_scan(folder, load_or_make) for folder, load_or_make in self.folders()]
        window = self._window_of(indexes)
        for index in indexes:
            self._store(index, window)
        index = indexes[0]
        short = min(index.median_size) if index.files else self.image_size
        if short < self.image_size:
            log.info(
                "The images are small (median short side %d px): crops of %d px enlarge them.", short, self.image_size
            )
        self._statistics_of(index, window)

    def _load_or_scan(self, folder: Path, load_or_make: Callable[[Storing], FolderIndex]) -> FolderIndex:
        """Loads or makes the index of a folder; images that are decoded for it are stored, if that needs no measured window."""
        cache_bytes = self.cache_gb * _GIB
        with StoreWhileScanning(folder, self.image_size, cache_bytes, self.given_window) as storing:
            index = load_or_make(storing)
            storing.keep(index)
        return index

    def _store(self, index: FolderIndex, window: Window | None) -> None:
        """Stores the decoded images of a folder, unless they are already."""
        store_size = self.store_size(index)
        if store_size is not None:
            build(index, store_size, window)
        elif self.cache_gb > 0:
            log.warning("The decoded images do not fit into cache_gb=%g, so they are decoded each time.", self.cache_gb)

    def _window_of(self, indexes: Sequence[FolderIndex]) -> Window | None:
        """The window of the images of more than 8 bits, of the first folder's training images and all of the other folders."""
        train = [None if place else index.splits.get("train") for place, index in enumerate(indexes)]
        found = [index.deep_among(chosen) for index, chosen in zip(indexes, train, strict=True)]
        if not any(map(len, found)):
            found = [index.deep_among() for index in indexes]
        deep = [
            (index.root / index.files.names[number], index.files.hashes[number].decode())
            for index, numbers in zip(indexes, found, strict=True)
            for number in numbers.tolist()
        ]
        total = sum(
            len(index.files if chosen is None else chosen) for index, chosen in zip(indexes, train, strict=True)
        )
        return self.choose_window(deep, max(0, total - len(deep)), indexes[0].path.parent)

    @property
    def module_needs_labels(self) -> bool:
        """Whether the module that the trainer runs takes images with labels only."""
        return bool(getattr(getattr(self.trainer, "lightning_module", None), "needs_labels", False))

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` made.

        Raises:
            UserError: It has not run.
        """
        if not has_index(self.record):
            raise UserError(
                f"The folder {self.root} has not been read yet ({self.record} is missing): call prepare_data() first."
            )
        index = self._index = load_index(self.record)
        splits = {
            name: Samples(files, index.labels(files), numbers=files.numbers) for name, files in index.splits.items()
        }
        window = self._window_of(self.indexes())
        mean, std = self._statistics_of(index, window)
        names = index.files.names
        everything = Samples(names, index.labels(names), numbers=np.arange(len(names)))
        return Source(splits, everything, index.classes, self.reader(index, window), mean, std, window=window)

    def reader(self, index: FolderIndex, window: Window | None) -> Reader:
        """Reads the images of an index, from the stored decoded images if there are any."""
        return Reader(index, self.image_size, self.store_size(index), window)

    def _statistics_of(self, index: FolderIndex, window: Window | None) -> tuple[Colour, Colour]:
        if self.statistics != "dataset":
            return FIXED[self.statistics]
        train: Sequence[str] = index.splits.get("train", [])
        return dataset_statistics(
            index.root, train, lambda file: index.files[file].hash, index.path.parent, window=window
        )

    @property
    def index(self) -> FolderIndex:
        """The index: files, classes and splits."""
        if self._index is None:
            raise UserError("The folder has not been read yet: call prepare_data() and setup() first.")
        return self._index

    def indexes(self) -> list[FolderIndex]:
        """The indexes of all folders that training images come from."""
        return [self.index]

    def _file_for_fitted(self, settings: str) -> Path:
        """The file, beside the index, in which to keep what was fitted on the training crops.

        Args:
            settings: All that it depends on besides the crops. The crops depend on the names and the pixels of the images, and
                on the settings of the augmentation.
        """
        crops = [self.image_size, self.channels, self.augment, self.seed]
        crops += [] if self.pixel_window is None else [self.pixel_window]
        digest = hashlib.blake2b(repr([settings, crops]).encode(), digest_size=8)
        for index in self.indexes():
            digest.update(f"{self.store_size(index)}\0".encode())
            for file, pixels in zip(index.files.names, index.files.hashes, strict=True):
                digest.update(f"{file}\0{pixels.decode()}\n".encode("utf-8", "surrogatepass"))
        for file in self.train_samples.files:
            digest.update(f"{file}\n".encode("utf-8", "surrogatepass"))
        return self.record.parent / f"words-{digest.hexdigest()}.safetensors"

    def store_size(self, index: FolderIndex) -> int | None:
        """Short side of the stored decoded images, in pixels; None if images are decoded each time."""
        return choose_store_size(index.files.shapes, self.image_size, self.cache_gb * _GIB)
