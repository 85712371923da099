"""Images with label maps, for semantic segmentation."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from lit_splitmask.annotations.label_classes import LabelledSplits, absent_classes, classes_of, read_names
from lit_splitmask.annotations.label_maps import Coding, open_map
from lit_splitmask.annotations.map_folder import MapFolder, MapOptions
from lit_splitmask.annotations.paired_files import PairedFile
from lit_splitmask.annotations.pairs import Pairs, find_pairs, images_to_predict
from lit_splitmask.augment.segment import SegmentAugment, scale_for
from lit_splitmask.datamodules.image_data import ImageData, check_counts
from lit_splitmask.datamodules.settings import ImageSettings, Settings
from lit_splitmask.distributed import rank
from lit_splitmask.errors import UserError
from lit_splitmask.files import local_folder
from lit_splitmask.images.index import folder_in
from lit_splitmask.images.replaced import check_same
from lit_splitmask.images.split import check_shares, cut, drop_shared
from lit_splitmask.images.statistics import FIXED, Colour, StatisticsKind, dataset_statistics
from lit_splitmask.images.tree import Tree
from lit_splitmask.images.window import Window
from lit_splitmask.loading.pairs import PairedCrops, WholeImages
from lit_splitmask.loading.prediction import WholeReader, examine_files
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)


class SegmentationFolder(ImageData):
    """Images and label maps: ``images/train/a.jpg`` and ``annotations/train/a.png``; the same for val and test.

    The folders may also be ``train/images`` and ``train/masks``, ``images`` and ``masks`` without splits, CamVid's ``train`` and
    ``train_labels``, or those of Pascal VOC and of CVAT's mask export. ADE20K's own folders (``images/training``,
    ``images/validation``, also in ``ADEChallengeData2016/``; 0 is void) need no changes.

    A map has one value per pixel of its image: grey or palette, 8 or 16 bits. The values, in order and without void, are the
    classes 0, 1, …, so values above void move down by one. Masks with 0 and 255 alone are read as two classes. Maps in colours
    need a table of the colours. Training uses crops, evaluation whole images one at a time. Prediction uses every image of the
    folder, with and without a map.

    Batches have ``image`` (B, C, H, W) uint8, ``index`` (B,) int64 and, except in prediction, ``map`` (B, H, W) int16, -1 without
    a label. No decoded images are stored: the record under ``index_dir`` holds the sizes and values of the files, and is updated
    for those that change.

    Args:
        root: The folder.
        image_size: Side of the crops, and of the windows in evaluation, in pixels.
        short_side: Short side of the images in training (at scale 1) and evaluation, in pixels; None for the size on disk.
        void: The value that means no label; None for 0 in ADE20K's folders, and 255 in others. If every pixel has a label, give
            a value above those in use.
        classes: A file with the class names, one per line in the order of the values; None for those of the colour table, or of
            ``classes.txt`` or ADE20K's ``objectInfo150.txt`` in the folder, if there is one.
        num_classes: Number of classes; None for the number of names, or of the values in the training maps.
        colours: A file with the colour of each class, for maps in colours or with palettes that differ: one class per line, as
            ``name:r,g,b``, ``name,r,g,b`` or ``r g b name``. None for ``labelmap.txt``, ``class_dict.csv`` or
            ``label_colors.txt`` in the folder, if there is one.
        values: The value of each class in the maps, if they are not 0, 1, 2, …, such as ``[0, 255]``; None to find out.
        val_share: Share of the training images for validation, if there is no val folder.
        augment: Augmentation of images and maps together; None for :class:`SegmentAugment` with its defaults.
        statistics: Mean and standard deviation for normalisation: ``imagenet``, ``dataset`` (measured on the training images)
            or ``half`` (0.5 and 0.5).
        index_dir: Folder of the record.
        **settings: Settings of :class:`ImageData`.

    Raises:
        UserError: ``val_share`` is outside [0, 1), ``short_side`` or ``num_classes`` is less than 1, ``void``, ``values`` or
            ``colours`` do not fit together (see :class:`MapOptions`), or a setting of :class:`ImageData` is out of range.

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
        colours: str | None = None,
        values: list[int] | None = None,
        val_share: float = 0.1,
        augment: SegmentAugment | None = None,
        statistics: StatisticsKind = "imagenet",
        index_dir: str = "runs/data",
        **settings: Settings[ImageSettings],
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        check_shares(val_share, 0.0)
        check_counts(short_side=short_side, num_classes=num_classes)
        self.options = MapOptions(void, None if values is None else tuple(values), colours)
        self.root = local_folder(root)
        self.short_side = short_side
        self.val_share = val_share
        self.augment = augment or SegmentAugment()
        self.statistics: StatisticsKind = statistics
        self.index_dir = Path(index_dir)
        self._class_file, self._num_classes = classes, num_classes
        self._folder: MapFolder | None = None
        self._shapes: dict[str, tuple[int, int]] = {}
        self._logged: set[str] = set()

    @property
    def record(self) -> Path:
        """Path of the record of the files."""
        return folder_in(self.index_dir, self.root) / "label_maps.json"

    @property
    def folder(self) -> MapFolder:
        """The images and maps that were read.

        Raises:
            UserError: They have not been read yet.
        """
        if self._folder is None:
            raise UserError("The label maps have not been read yet: call prepare_data() and setup() first.")
        return self._folder

    @property
    def pairs(self) -> Pairs:
        """The images and maps on disk; once they are read, those that can be."""
        return find_pairs(self.root) if self._folder is None else self._folder.pairs

    @property
    def coding(self) -> Coding:
        """What the values of the maps stand for."""
        return self.folder.coding

    @property
    def void(self) -> int:
        """The value that means no label in the maps; one that no pixel has, if every pixel has a label."""
        return self.options.usual_void(self.pairs.is_ade20k) if self._folder is None else self.coding.void

    @property
    def map_values(self) -> list[int] | None:
        """The value of each class in the maps; None if they are 0, 1, 2, … without void."""
        values = None if self._folder is None else self.coding.values
        return None if values is None else list(values)

    @property
    def map_colours(self) -> list[list[int]] | None:
        """The colour of each class, red, green and blue; None without a colour table."""
        table = None if self._folder is None else self.coding.table
        if table is None:
            return None
        return [list(colour) for number, colour in enumerate(table.colours) if number != self.void]

    def smallest_image(self) -> tuple[str, int]:
        """Path and shorter side, in pixels, of the image whose shorter side is smallest in evaluation."""
        sides = {file: round(min(shape) * scale_for(shape, self.short_side)) for file, shape in self._shapes.items()}
        file = min(sides, key=lambda name: sides[name])
        return str(self.root / file), sides[file]

    def prepare_data(self) -> None:
        """Reads each new or changed file once, checks images and maps, and measures pixel statistics.

        Raises:
            UserError: The images or maps cannot be used, or it is unclear what a value means.
        """
        if self.predicts_only:
            return
        self._read(scan=True)
        splits = self._splits()
        self.folder.check_void(self.options)
        names = self._class_names(splits)  # raises an error if they do not fit
        absent = absent_classes(self._labelled(splits), self.coding, names) if "train" in splits else []
        if absent:
            self._log(logging.WARNING, f"No training map has a pixel of {', '.join(absent)}.")
        window = self._window(splits)
        if self.statistics == "dataset":
            self._dataset_statistics(splits, window)

    def _read(self, *, scan: bool) -> None:
        self._folder = MapFolder.read(self.root, self.record, self.options, scan=scan)
        self._shapes = self._folder.shapes
        for level, message in self._folder.notes:
            self._log(level, message)

    def _log(self, level: int, message: str) -> None:
        """Logs a message, once and in one process of a run."""
        if message not in self._logged and rank() == 0:
            self._logged.add(message)
            log.log(level, "%s", message)

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` read.

        Raises:
            UserError: It has not run.
        """
        if not self.record.exists():
            raise UserError(
                f"The folder {self.root} has not been read yet ({self.record} is missing): call prepare_data() first."
            )
        self._read(scan=False)
        files = self._splits()
        samples = {name: Samples(found, [-1] * len(found)) for name, found in files.items() if name != "unlabelled"}
        predict = sorted({file for found in self.pairs.splits.values() for file in found})
        window = self._window(files)
        mean, std = self._dataset_statistics(files, window) if self.statistics == "dataset" else FIXED[self.statistics]
        read = WholeReader(self.root, {file: self.folder.record[file] for file in predict}, window=window)
        predicted = Samples(predict, [-1] * len(predict))
        return Source(samples, predicted, self._class_names(files), read, mean, std, window=window)

    def open_for_prediction(self) -> Source:
        """Opens every image once, for prediction; no maps are read.

        Raises:
            UserError: There are no images, or none can be read.
        """
        tree = Tree.read(self.root)
        for line in tree.describe_left_out():
            self._log(logging.WARNING, f"Not read: {line}.")
        files = examine_files(self.root, images_to_predict(self.root, tree), tree.unread_images(), self.given_window)
        self._shapes = dict(zip(files.readable, files.shapes, strict=True))
        samples = Samples(files.readable, [-1] * len(files.readable))
        mean, std = FIXED["imagenet"]  # trained weights have their own
        read = WholeReader(self.root, window=files.window)
        return Source({}, samples, [], read, mean, std, files.problems, files.window)

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
        """Images by split: a missing val is cut from train, and no image is in two splits.

        Raises:
            UserError: All training images are in val or test too.
        """
        hashes = self.folder.hashes
        labelled = {name: files for name, files in self.pairs.splits.items() if name != "unlabelled"}
        splits, dropped = drop_shared(labelled, hashes)
        for entry in dropped:
            self._log(logging.WARNING, f"{entry.describe()} and is left out.")
        if labelled.get("train") and not splits["train"]:
            raise UserError(
                f"All {len(labelled['train']):,} training images in {self.root} are in val or test too, so none is left to train "
                "on: give each split different images."
            )
        if not splits.get("val") and "train" in splits:
            splits |= self._cut_val(splits["train"], hashes)
        if "unlabelled" in self.pairs.splits:
            splits["unlabelled"] = self.pairs.splits["unlabelled"]
        return {name: files for name, files in splits.items() if files}

    def _cut_val(self, train: list[str], hashes: dict[str, str]) -> dict[str, list[str]]:
        """Train and val, if there is no val folder."""
        found = {"train": train}
        if self.val_share:
            found = cut(train, hashes, dict.fromkeys(train, -1), shares={"val": self.val_share}, seed=0)
        num_val = len(found.get("val", []))
        if num_val:
            self._log(
                logging.INFO, f"{self.root} has no val: {num_val:,} of {len(train):,} training images are held out."
            )
        else:
            self._log(
                logging.WARNING,
                f"{self.root} has no val, and none is cut: the weights of the last step are used, not the best.",
            )
        return found

    def _labelled(self, splits: dict[str, list[str]]) -> LabelledSplits:
        return LabelledSplits(self.root, self.pairs, splits, self.folder.record)

    def _class_names(self, splits: dict[str, list[str]]) -> list[str]:
        table = self.coding.table
        if table is not None and self._class_file is None:
            names = [name for number, name in enumerate(table.names) if number != self.void]
        else:
            names = read_names(self.root, self._class_file)
        return classes_of(
            self._labelled(splits),
            self.coding,
            names=names,
            num_classes=self._num_classes,
            void_is_given=self.options.void is not None,
        )

    def _window(self, splits: dict[str, list[str]]) -> Window | None:
        return self.window_of(self.root, splits.get("train", []), self.folder.hashes.__getitem__, self.record.parent)

    def _dataset_statistics(self, splits: dict[str, list[str]], window: Window | None) -> tuple[Colour, Colour]:
        return dataset_statistics(
            self.root, splits.get("train", []), self.folder.hashes.__getitem__, self.record.parent, window=window
        )

    def _read_classes(self) -> partial[np.ndarray]:
        maps = {image: (self.root / file, self.folder.record[file]) for image, file in self.pairs.maps.items()}
        return partial(_read_classes, maps, self.coding)

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
        """Whole images, with their maps unless they are to be predicted."""
        return WholeImages(
            samples,
            self.source.read,
            read_classes=None if samples is self.source.predict else self._read_classes(),
            short_side=self.short_side,
            channels=self.channels,
        )


def _read_classes(maps: Mapping[str, tuple[Path, PairedFile]], coding: Coding, image: str) -> np.ndarray:
    """The classes of an image's map, (H, W) int16, if it is still the one that was scanned."""
    path, known = maps[image]
    check_same(path, known.size, known.mtime_ns, lambda: open_map(path).hash == known.hash, kind="label map")
    return coding.read_classes(path)
