"""Images with PNG label maps, for semantic segmentation."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from lit_splitmask.annotations.label_classes import classes_of, read_names
from lit_splitmask.annotations.label_maps import (
    ADE20K_NAMES,
    MOST_VALUES,
    FileFacts,
    Pairs,
    find_pairs,
    load_record,
    read_map,
    scan_pairs,
    to_classes,
)
from lit_splitmask.augment.segment import SegmentAugment, scale_for
from lit_splitmask.datamodules.image_data import ImageData, check_counts
from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import decode
from lit_splitmask.images.index import FolderIndex, folder_in
from lit_splitmask.images.scan import FileRecord
from lit_splitmask.images.split import check_shares, cut, drop_shared
from lit_splitmask.images.statistics import FIXED, StatisticsKind, dataset_statistics
from lit_splitmask.loading.pairs import PairedCrops, WholeImages
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)

USUAL_VOID, ADE20K_VOID, ADE20K_CLASSES = 255, 0, 150


class SegmentationFolder(ImageData):
    """A folder of images with PNG label maps: ``images/train/a.jpg`` and ``annotations/train/a.png``, also val and test.

    A map has a value for each pixel of its image: grey or palette, 8 or 16 bits. The classes are the values in order without
    void, so that values above void move down by one: ADE20K's own folders (``images/training``, ``images/validation``, also in
    ``ADEChallengeData2016/``; 0 is void) are read as they are. Training gives crops, evaluation whole images one at a time.
    A folder without ``images`` and ``annotations`` holds images to predict.

    Nothing is decoded ahead or kept: the record under ``index_dir`` holds sizes and values of the files, and is renewed for
    those that have changed.

    Args:
        root: The folder.
        image_size: Side of the crops, and of the windows of evaluation.
        short_side: To which images are scaled, for training (scale 1) and evaluation; None leaves them as they are.
        void: The value that means no label; None for 0 in ADE20K's folders, else 255. Where every pixel has a label, any value
            above those in use will do.
        classes: A file with the classes' names, one a line in the order of their values; None for ``classes.txt`` or ADE20K's
            ``objectInfo150.txt`` in the folder, where there is one.
        num_classes: Number of classes; None for that of the names, or what the training maps have.
        val_share: Share of the training images for validation, where there is no folder for it.
        augment: Of images and maps together; None for :class:`SegmentAugment` as it is.
        statistics: Mean and standard deviation for normalisation: ImageNet's, the train images' own, or 0.5 and 0.5.
        index_dir: Where the record is kept.
        **settings: Those of :class:`ImageData`.

    Raises:
        UserError: A setting is out of its range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 512,
        *,
        short_side: int | None = None,
        void: int | None = None,
        classes: str | None = None,
        num_classes: int | None = None,
        val_share: float = 0.1,
        augment: SegmentAugment | None = None,
        statistics: StatisticsKind = "imagenet",
        index_dir: str = "runs/data",
        **settings: Any,
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        check_shares(val_share, 0.0)
        check_counts(short_side=short_side, num_classes=num_classes)
        if void is not None and not 0 <= void < MOST_VALUES:
            raise UserError(
                f"void={void}, but a map's values are 0 to {MOST_VALUES - 1:,}: give the value without a label, or one that no "
                "pixel has."
            )
        self.root = Path(root).expanduser()
        self.short_side = short_side
        self.val_share = val_share
        self.augment = augment or SegmentAugment()
        self.statistics: StatisticsKind = statistics
        self.index_dir = Path(index_dir)
        self._void, self._class_file, self._num_classes = void, classes, num_classes
        self._pairs: Pairs | None = None
        self._record: dict[str, FileFacts] = {}

    @property
    def record(self) -> Path:
        """Where the record of the files is kept."""
        return folder_in(self.index_dir, self.root) / "label_maps.json"

    @property
    def pairs(self) -> Pairs:
        """Which images and maps there are."""
        if self._pairs is None:
            self._pairs = find_pairs(self.root)
        return self._pairs

    @property
    def void(self) -> int:
        """The value of the maps that means no label."""
        return self._void if self._void is not None else ADE20K_VOID if self.pairs.is_ade20k else USUAL_VOID

    def smallest_image(self) -> tuple[str, int]:
        """Path and shorter side, in pixels, of the image with the shortest side at the size of evaluation."""
        sides = {
            file: round(min(self._record[file].shape) * scale_for(self._record[file].shape, self.short_side))
            for split in self.pairs.splits.values()
            for file in split
        }
        file = min(sides, key=lambda name: sides[name])
        return str(self.root / file), sides[file]

    def prepare_data(self) -> None:
        """Reads sizes and values of all files, those that have not been read before, and measures pixels.

        Raises:
            UserError: The images or maps cannot be used.
        """
        self._pairs = find_pairs(self.root)
        self._record = scan_pairs(self.root, self.pairs, self.record)
        splits = self._splits()
        self._check_void()
        self._names(splits)
        if self.statistics == "dataset":
            dataset_statistics(self._index(splits))

    def _check_void(self) -> None:
        """Refuses to take 255 for void, without being told to, where that is doubtful."""
        most = max((max(self._record[f].values, default=0) for f in self.pairs.maps.values()), default=0)
        as_ade20k = (self.root / "images" / "training").is_dir() and most <= ADE20K_CLASSES
        if as_ade20k and self._void is None and not self.pairs.is_ade20k:
            raise UserError(
                f"{self.root} has the folders of ADE20K, but neither its name nor its table of classes ({ADE20K_NAMES}): set "
                f"data.void to {ADE20K_VOID} if it is ADE20K, whose 0 means no label, or else to {USUAL_VOID}."
            )
        file = next((f for f in self.pairs.maps.values() if max(self._record[f].values, default=0) > USUAL_VOID), None)
        if file is not None and self._void is None and not self.pairs.is_ade20k:
            raise UserError(
                f"The label map {self.root / file} has values above {USUAL_VOID}, so {USUAL_VOID} may be a class or mean "
                "no label: set data.void to the value without a label, or to one that no pixel has."
            )

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` has read.

        Raises:
            UserError: It has not run.
        """
        if not self.record.exists():
            raise UserError(
                f"The folder {self.root} has not been read yet ({self.record} is missing): call prepare_data()."
            )
        self._record = load_record(self.record)
        files = self._splits()
        samples = {name: Samples(found, [-1] * len(found)) for name, found in files.items() if name != "unlabelled"}
        wanted = files.get("test") or files.get("unlabelled") or sorted({f for found in files.values() for f in found})
        mean, std = dataset_statistics(self._index(files)) if self.statistics == "dataset" else FIXED[self.statistics]
        names = self._names(files)
        return Source(samples, Samples(wanted, [-1] * len(wanted)), names, partial(_read, self.root), mean, std)

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and works the budget out.

        Raises:
            UserError: There is nothing to train on, ``prepare_data`` has not run, or the batch cannot be shared.
        """
        if stage in (None, "fit") and "train" not in self.pairs.splits:
            raise UserError(
                f"{self.root} holds no images with label maps to train on: put them into images/train/ and annotations/train/, "
                "the maps as PNG files of the same names."
            )
        super().setup(stage)

    def _splits(self) -> dict[str, list[str]]:
        """Images by split: val is cut off where it is missing, and no image stands in two splits."""
        hashes = {file: self._record[file].hash for split in self.pairs.splits.values() for file in split}
        labelled = {name: files for name, files in self.pairs.splits.items() if name != "unlabelled"}
        splits, dropped = drop_shared(labelled, hashes)
        for entry in dropped:
            log.warning("%s, so it is left out.", entry.describe())
        if "val" not in splits and self.val_share and "train" in splits:
            train = splits["train"]
            splits |= cut(train, hashes, dict.fromkeys(train, -1), shares={"val": self.val_share}, seed=0)
        if "unlabelled" in self.pairs.splits:
            splits["unlabelled"] = self.pairs.splits["unlabelled"]
        return {name: files for name, files in splits.items() if files}

    def _names(self, splits: dict[str, list[str]]) -> list[str]:
        return classes_of(
            self.root,
            self.pairs,
            splits,
            self._record,
            void=self.void,
            names=read_names(self.root, self._class_file),
            num_classes=self._num_classes,
        )

    def _index(self, splits: dict[str, list[str]]) -> FolderIndex:
        """The images as the statistics know a folder."""
        files = {
            file: FileRecord(facts.size, facts.mtime_ns, facts.hash, facts.shape)
            for file, facts in self._record.items()
            if facts.hash
        }
        return FolderIndex(self.root, self.record, {}, "label maps", [], 0, files, {}, splits)

    def _read_classes(self) -> partial[np.ndarray]:
        return partial(_read_classes, self.root, self.pairs.maps, self.void)

    def train_images(self) -> Dataset:
        """Crops of images and maps, augmented together."""
        fill = (255 * np.array(self.source.mean)).round().astype(np.uint8)
        return PairedCrops(
            self.train_samples,
            self.source.read,
            read_classes=self._read_classes(),
            transform=self.augment.build(self.image_size, short_side=self.short_side, fill=fill),
            channels=self.channels,
            seed=self.seed,
        )

    def eval_images(self, samples: Samples) -> WholeImages:
        """Whole images, with their maps if all have one."""
        labelled = all(file in self.pairs.maps for file in samples.files)
        return WholeImages(
            samples,
            self.source.read,
            read_classes=self._read_classes() if labelled else None,
            short_side=self.short_side,
            channels=self.channels,
        )


def _read(root: Path, file: str) -> np.ndarray:
    return decode(root / file)


def _read_classes(root: Path, maps: dict[str, str], void: int, file: str) -> np.ndarray:
    return to_classes(read_map(root / maps[file]), void)
