"""The user's own images with boxes and masks, in COCO's format; also COCO 2017 itself."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.annotations import rle
from lit_splitmask.annotations.coco import (
    Annotations,
    Categories,
    categories_of,
    check_images,
    read_file,
    without_objects,
)
from lit_splitmask.augment.detect import DetectionAugment, fit, whole_view
from lit_splitmask.datamodules.image_data import ImageData, check_counts
from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import decode
from lit_splitmask.images.statistics import FIXED
from lit_splitmask.loading.objects import CocoImages
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

_SPLITS = ("train", "val", "test")
_YEAR = "2017"
_UNANNOTATED = "."  # split, and folder relative to the root, of images without annotations


class CocoDetection(ImageData):
    """A folder with ``train/``, ``val/`` and ``annotations/instances_{train,val}.json``, or with COCO 2017's own names.

    Labels are indices into the list of categories; :attr:`category_ids` and :meth:`image_ids` give the ids in the files.
    Training images without objects are left out (crowds alone do not count); evaluation uses all. A ``test`` split of the same
    form is used if it is annotated. A folder of images without annotations can be predicted on; its images are numbered from 1.
    Batches are those of :class:`CocoImages`.

    Args:
        root: The folder.
        image_size: Short side in evaluation, and largest short side in training, in pixels.
        max_size: Largest long side, in pixels.
        masks: Whether to learn masks as well as boxes.
        augment: Augmentation of training images.
        eval_batch_size: Images per evaluation batch of a process. In a batch, smaller images are padded, and attention sees the
            padding. With more than 1, scores depend on the batches, and so on the number of processes.
        **settings: Settings of :class:`ImageData`.

    Raises:
        UserError: ``eval_batch_size`` is less than 1, ``max_size`` is less than ``image_size``, or a setting of
            :class:`ImageData` is out of range.

    Example:
        >>> from lit_splitmask.datamodules import CocoDetection
        >>> data = CocoDetection("facades", image_size=32, max_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> data.class_names, data.category_ids
        (['disc', 'bar', 'roof'], [0, 3, 90])
        >>> batch = next(iter(data.train_dataloader()))
        >>> sorted(batch), sorted(batch["target"][0])
        (['image', 'index', 'size', 'target'], ['boxes', 'labels', 'masks'])
    """

    def __init__(
        self,
        root: str,
        image_size: int = 800,
        *,
        max_size: int = 1333,
        masks: bool = True,
        augment: DetectionAugment = DetectionAugment(),  # noqa: B008 (frozen)
        eval_batch_size: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        check_counts(eval_batch_size=eval_batch_size)
        self.eval_batch_size = eval_batch_size
        if max_size < image_size:
            raise UserError(
                f"max_size={max_size}, the largest long side, must be at least image_size={image_size}, the short side."
            )
        self.root, self.max_size, self.masks, self.augment = Path(root).expanduser(), max_size, masks, augment
        self._annotations: dict[str, Annotations] = {}
        self._positions: dict[str, int] = {}
        self._categories = Categories([], [])

    def split_files(self) -> dict[str, tuple[Path, Path]]:
        """Annotation file and image folder of each annotated split."""
        found = {}
        for split in _SPLITS:
            for name in (split, split + _YEAR):
                path = self.root / "annotations" / f"instances_{name}.json"
                if path.is_file():
                    found[split] = (path, self.root / name)
                    break
        return found

    def prepare_data(self) -> None:
        """Checks that all annotated images exist. Writes nothing.

        Raises:
            UserError: An image is missing, or an annotation file is not in COCO's format.
        """
        files = self.split_files()
        for split, annotations in self._read().items():
            if split in files:
                check_images(files[split][1], annotations.names)

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and converts the budget to steps, as :meth:`ImageData.setup` does.

        Raises:
            UserError: There are no annotations or objects for the stage, or :meth:`ImageData.setup` raises it.
        """
        if stage != "predict" and not {"train", "val"} & self.split_files().keys():
            raise UserError(
                f"{self.root} is not a folder in COCO's format: it has neither annotations/instances_train.json nor "
                "annotations/instances_train2017.json. Put the images into train/ and val/, next to annotations/."
            )
        for split in {None: ("train", "val"), "fit": ("train", "val"), "validate": ("val",)}.get(stage, ()):
            self._check_objects(split)
        super().setup(stage)

    def _check_objects(self, split: str) -> None:
        annotations = self._read().get(split)
        if annotations is not None and not annotations.num_objects.any():
            purpose = "train on" if split == "train" else "evaluate"
            raise UserError(
                f"{annotations.path} has no object to {purpose} in {len(annotations):,} images (objects without area, objects "
                "with polygons of fewer than 3 points, and crowds do not count). Annotate some, or remove the file. To pre-train "
                "on images alone, use lit-splitmask pretrain."
            )

    def _read(self) -> dict[str, Annotations]:
        """The annotations by split; reads the files on the first call."""
        if self._annotations:
            return self._annotations
        rle.require()
        files = self.split_files()
        if not files:
            self._annotations[_UNANNOTATED] = without_objects(self.root)
        stored = {path: read_file(path) for path, _ in files.values()}
        self._categories = categories_of(stored)
        for split, (path, _) in files.items():
            if self.masks:
                _require_masks(path, stored[path])
            self._annotations[split] = Annotations(path, stored[path], self._categories, masks=self.masks)
        return self._annotations

    def open_source(self) -> Source:
        """The splits, without training images that have no objects; a test split without objects is only predicted on.

        Raises:
            UserError: A file is not in COCO's format.
        """
        splits: dict[str, Samples] = {}
        annotations = self._read()
        folders = {split: folder.name for split, (_, folder) in self.split_files().items()}
        for split, folder in (folders or {_UNANNOTATED: _UNANNOTATED}).items():
            of_split = annotations[split]
            positions = np.arange(len(of_split))
            if split == "train":
                positions = positions[of_split.num_objects > 0]
            names = [f"{folder}/{of_split.names[position]}" for position in positions]
            self._positions |= dict(zip(names, positions.tolist(), strict=True))
            splits[split] = Samples(names, np.full(len(names), -1))
        predict = next(splits[name] for name in ("test", "val", "train", _UNANNOTATED) if name in splits)
        if "test" in splits and not annotations["test"].num_objects.any():
            del splits["test"]  # only predicted on
        mean, std = FIXED["imagenet"]
        return Source(splits, predict, self._categories.names, partial(_read_image, str(self.root)), mean, std)

    @property
    def table_passes(self) -> float:
        """Passes of the 3× schedule."""
        return 36

    @property
    def category_ids(self) -> list[int]:
        """Category ids in the annotation files, by label."""
        return self._categories.ids

    def image_ids(self, samples: Samples) -> list[int]:
        """Image ids in the annotation files, by index in ``samples``."""
        annotations, positions = self._annotations_of(samples)
        return annotations.image_ids[positions].tolist()

    @property
    def predict_image_ids(self) -> list[int]:
        """Image ids of the images to predict, by index."""
        return self.image_ids(self.source.predict)

    @property
    def is_annotated(self) -> bool:
        """Whether there are annotation files."""
        return bool(self.split_files())

    def smallest_image(self) -> tuple[str, int]:
        """Name and shorter side, in pixels, of the image of all splits whose shorter side is least, on disk or resized."""
        sides: list[tuple[int, str]] = []
        for annotations in self._read().values():
            for name, (height, width) in zip(annotations.names, annotations.sizes.tolist(), strict=True):
                sides.append((min(height, width, *fit(height, width, self.image_size, self.max_size)), name))
        side, name = min(sides)
        return name, side

    def _annotations_of(self, samples: Samples) -> tuple[Annotations, np.ndarray]:
        """The annotations of a split, and the position of each image in them."""
        folder = samples.files[0].partition("/")[0] if len(samples) else "train"
        positions = np.array([self._positions[name] for name in samples.files], dtype=np.int64)
        return self._annotations[folder.removesuffix(_YEAR)], positions

    def _images(self, samples: Samples, *, training: bool) -> CocoImages:
        annotations, positions = self._annotations_of(samples)
        whole = partial(whole_view, short=self.image_size, longest=self.max_size)
        augmented = partial(self.augment.build(self.image_size), longest=self.max_size)
        return CocoImages(
            samples,
            self.source.read,
            annotations=annotations,
            positions=positions,
            view=augmented if training else whole,
            training=training,
            masks=self.masks,
            channels=self.channels,
            seed=self.seed,
        )

    def train_images(self) -> CocoImages:
        """Augmented views of whole images, with the objects in them."""
        return self._images(self.train_samples, training=True)

    def eval_images(self, samples: Samples) -> CocoImages:
        """Whole images, not augmented, with their objects as in the file."""
        return self._images(samples, training=False)


def _require_masks(path: Path, stored: dict[str, Any]) -> None:
    """Raises an error if a file has objects, but none with a mask."""
    entries = stored["annotations"]
    if entries and not any(entry.get("segmentation") for entry in entries):
        raise UserError(
            f"{path} has boxes but no masks: no annotation has a 'segmentation'. Train on boxes only (data.masks=false)."
        )


def _read_image(root: str, name: str) -> np.ndarray:
    return decode(Path(root) / name)
