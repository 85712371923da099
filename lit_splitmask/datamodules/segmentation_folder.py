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
from lit_splitmask.images.index import folder_in
from lit_splitmask.images.split import check_shares, cut, drop_shared
from lit_splitmask.images.statistics import FIXED, Colour, StatisticsKind, dataset_statistics
from lit_splitmask.loading.pairs import PairedCrops, WholeImages
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)

USUAL_VOID, ADE20K_VOID, ADE20K_CLASSES = 255, 0, 150


class SegmentationFolder(ImageData):
    """Images and PNG label maps: ``images/train/a.jpg`` and ``annotations/train/a.png``; the same for val and test.

    A map has one value per pixel of its image: grey or palette, 8 or 16 bits. The values, in order and without void, are the
    classes 0, 1, …, so values above void move down by one. ADE20K's own folders (``images/training``, ``images/validation``,
    also in ``ADEChallengeData2016/``; 0 is void) need no changes. Training uses crops, evaluation whole images one at a time. A
    folder without ``images`` and ``annotations`` holds images to predict.

    Batches have ``image`` (B, C, H, W) uint8, ``index`` (B,) int64 and, except in prediction without maps, ``map`` (B, H, W)
    int16, -1 without a label. No decoded images are stored: the record under ``index_dir`` holds the sizes and values of the
    files, and is updated for those that change.

    Args:
        root: The folder.
        image_size: Side of the crops, and of the windows in evaluation, in pixels.
        short_side: Short side of the images in training (at scale 1) and evaluation, in pixels; None for the size on disk.
        void: The value that means no label; None for 0 in ADE20K's folders, and 255 in others. If every pixel has a label, give
            a value above those in use.
        classes: A file with the class names, one per line in the order of the values; None for ``classes.txt`` or ADE20K's
            ``objectInfo150.txt`` in the folder, if there is one.
        num_classes: Number of classes; None for the number of names, or of the values in the training maps.
        val_share: Share of the training images for validation, if there is no val folder.
        augment: Augmentation of images and maps together; None for :class:`SegmentAugment` with its defaults.
        statistics: Mean and standard deviation for normalisation: ``imagenet``, ``dataset`` (measured on the training images)
            or ``half`` (0.5 and 0.5).
        index_dir: Folder of the record.
        **settings: Settings of :class:`ImageData`.

    Raises:
        UserError: ``val_share`` is outside [0, 1), ``short_side`` or ``num_classes`` is less than 1, ``void`` is not a possible
            value, or a setting of :class:`ImageData` is out of range.

    Example:
        >>> from lit_splitmask.datamodules import SegmentationFolder
        >>> data = SegmentationFolder("streets", image_size=32, batch_size=4, num_workers=0)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> data.num_classes, data.void
        (3, 255)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["map"].shape, batch["map"].dtype
        (torch.Size([4, 3, 32, 32]), torch.Size([4, 32, 32]), torch.int16)
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
                f"void={void}, but the values of label maps are 0 to {MOST_VALUES - 1:,}: give the value that means no label, or "
                "one that no pixel has."
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
        """Path of the record of the files."""
        return folder_in(self.index_dir, self.root) / "label_maps.json"

    @property
    def pairs(self) -> Pairs:
        """The images and maps on disk."""
        if self._pairs is None:
            self._pairs = find_pairs(self.root)
        return self._pairs

    @property
    def void(self) -> int:
        """The value that means no label in the maps."""
        return self._void if self._void is not None else ADE20K_VOID if self.pairs.is_ade20k else USUAL_VOID

    def smallest_image(self) -> tuple[str, int]:
        """Path and shorter side, in pixels, of the image whose shorter side is least in evaluation."""
        sides = {
            file: round(min(self._record[file].shape) * scale_for(self._record[file].shape, self.short_side))
            for split in self.pairs.splits.values()
            for file in split
        }
        file = min(sides, key=lambda name: sides[name])
        return str(self.root / file), sides[file]

    def prepare_data(self) -> None:
        """Reads the sizes and values of new and changed files, and measures pixel statistics.

        Raises:
            UserError: The images or maps cannot be used, or it is unclear which value is void.
        """
        self._pairs = find_pairs(self.root)
        self._record = scan_pairs(self.root, self.pairs, self.record)
        splits = self._splits()
        self._check_void()
        self._class_names(splits)  # raises an error if they do not fit
        if self.statistics == "dataset":
            self._dataset_statistics(splits)

    def _check_void(self) -> None:
        """Raises an error if void was not given and may not be 255."""
        most = max((max(self._record[f].values, default=0) for f in self.pairs.maps.values()), default=0)
        as_ade20k = (self.root / "images" / "training").is_dir() and most <= ADE20K_CLASSES
        if as_ade20k and self._void is None and not self.pairs.is_ade20k:
            raise UserError(
                f"{self.root} has the folders of ADE20K, but neither its name nor its table of classes ({ADE20K_NAMES}): set "
                f"data.void to {ADE20K_VOID} if it is ADE20K, where 0 means no label, otherwise to {USUAL_VOID}."
            )
        file = next((f for f in self.pairs.maps.values() if max(self._record[f].values, default=0) > USUAL_VOID), None)
        if file is not None and self._void is None and not self.pairs.is_ade20k:
            raise UserError(
                f"The label map {self.root / file} has values above {USUAL_VOID}, so {USUAL_VOID} may be a class or mean "
                "no label: set data.void to the value that means no label, or to one that no pixel has."
            )

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` read.

        Raises:
            UserError: It has not run.
        """
        if not self.record.exists():
            raise UserError(
                f"The folder {self.root} has not been read yet ({self.record} is missing): call prepare_data() first."
            )
        self._record = load_record(self.record)
        files = self._splits()
        samples = {name: Samples(found, [-1] * len(found)) for name, found in files.items() if name != "unlabelled"}
        predict = files.get("test") or files.get("unlabelled") or sorted({f for found in files.values() for f in found})
        mean, std = self._dataset_statistics(files) if self.statistics == "dataset" else FIXED[self.statistics]
        names = self._class_names(files)
        return Source(samples, Samples(predict, [-1] * len(predict)), names, partial(_read, self.root), mean, std)

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and converts the budget to steps, as :meth:`ImageData.setup` does.

        Raises:
            UserError: There are no images with label maps to train on, or :meth:`ImageData.setup` raises it.
        """
        if stage in (None, "fit") and "train" not in self.pairs.splits:
            raise UserError(
                f"{self.root} holds no images with label maps to train on: put images into images/train/, and label maps, as PNG "
                "files of the same names, into annotations/train/."
            )
        super().setup(stage)

    def _splits(self) -> dict[str, list[str]]:
        """Images by split: a missing val is cut from train, and no image is in two splits."""
        hashes = {file: self._record[file].hash for split in self.pairs.splits.values() for file in split}
        labelled = {name: files for name, files in self.pairs.splits.items() if name != "unlabelled"}
        splits, dropped = drop_shared(labelled, hashes)
        for entry in dropped:
            log.warning("%s and is left out.", entry.describe())
        if "val" not in splits and self.val_share and "train" in splits:
            train = splits["train"]
            splits |= cut(train, hashes, dict.fromkeys(train, -1), shares={"val": self.val_share}, seed=0)
        if "unlabelled" in self.pairs.splits:
            splits["unlabelled"] = self.pairs.splits["unlabelled"]
        return {name: files for name, files in splits.items() if files}

    def _class_names(self, splits: dict[str, list[str]]) -> list[str]:
        return classes_of(
            self.root,
            self.pairs,
            splits,
            self._record,
            void=self.void,
            names=read_names(self.root, self._class_file),
            num_classes=self._num_classes,
        )

    def _dataset_statistics(self, splits: dict[str, list[str]]) -> tuple[Colour, Colour]:
        hashes = {file: facts.hash for file, facts in self._record.items()}
        return dataset_statistics(self.root, splits.get("train", []), hashes, self.record.parent)

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
        """Whole images, with their maps if all images have one."""
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
