"""Boxes and masks: any folder in COCO's format, COCO 2017 itself among them."""

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
_PLAIN = "."  # the split, and the folder under the root, of images without annotations


class CocoDetection(ImageData):
    """A folder with ``train/``, ``val/`` and ``annotations/instances_{train,val}.json``, or with COCO 2017's own names.

    Labels are places in the list of categories, whatever the files' ids; :attr:`category_ids` and :meth:`image_ids` lead back.
    Training images without objects are left out (crowds alone do not count); evaluation keeps all. A ``test`` split of the same
    form is used where it is annotated. A folder of images without annotations can be predicted on; its images are numbered
    from 1. Batches are those of :class:`CocoImages`.

    Args:
        root: The folder.
        image_size: Short side in evaluation, and the longest short side in training.
        max_size: Of the long side.
        masks: Whether there are masks to learn; without them, boxes only.
        augment: Of training images.
        eval_batch_size: Images a process evaluates at once. Of several, the smaller ones are padded, which attention sees: scores
            then depend on which images come together, and so on the number of processes.
        **settings: Those of :class:`ImageData`.

    Raises:
        UserError: A setting is out of its range.
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
                f"max_size={max_size} is the longest side, and cannot be less than image_size={image_size}."
            )
        self.root, self.max_size, self.masks, self.augment = Path(root).expanduser(), max_size, masks, augment
        self._annotations: dict[str, Annotations] = {}
        self._places: dict[str, int] = {}
        self._categories = Categories([], [])

    def split_files(self) -> dict[str, tuple[Path, Path]]:
        """The annotation file and the image folder of each split that is there."""
        found = {}
        for split in _SPLITS:
            for name in (split, split + _YEAR):
                path = self.root / "annotations" / f"instances_{name}.json"
                if path.is_file():
                    found[split] = (path, self.root / name)
                    break
        return found

    def prepare_data(self) -> None:
        """Checks that the images are there; nothing is written.

        Raises:
            UserError: Something is missing.
        """
        files = self.split_files()
        for split, annotations in self._read().items():
            if split in files:
                check_images(files[split][1], annotations.names)

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and works the budget out, as :meth:`ImageData.setup` does.

        Raises:
            UserError: There are no annotations, or no objects, to train on or to evaluate by.
        """
        if stage != "predict" and not {"train", "val"} & self.split_files().keys():
            raise UserError(
                f"{self.root} is not a folder in COCO's format: there is no annotations/instances_train.json nor "
                "annotations/instances_train2017.json. Images belong into train/ and val/ beside annotations/."
            )
        for split in {None: ("train", "val"), "fit": ("train", "val"), "validate": ("val",)}.get(stage, ()):
            self._check_objects(split)
        super().setup(stage)

    def _check_objects(self, split: str) -> None:
        known = self._read().get(split)
        if known is not None and not known.num_objects.any():
            raise UserError(
                f"{known.path} has no object to {'train on' if split == 'train' else 'evaluate by'}, in {len(known):,} images"
                " (objects without area, with polygons of fewer than 3 points, and crowds do not count)."
                " Annotate some, or move the file away. Images alone are for lit-splitmask pretrain."
            )

    def _read(self) -> dict[str, Annotations]:
        """All annotation files, once."""
        if self._annotations:
            return self._annotations
        rle.require()
        files = self.split_files()
        if not files:
            self._annotations[_PLAIN] = without_objects(self.root)
        stored = {path: read_file(path) for path, _ in files.values()}
        self._categories = categories_of(stored)
        for split, (path, _) in files.items():
            if self.masks:
                _check_has_masks(path, stored[path])
            self._annotations[split] = Annotations(path, stored[path], self._categories, masks=self.masks)
        return self._annotations

    def open_source(self) -> Source:
        """The splits; training images without objects are left out, and a test split without any is for predicting.

        Raises:
            UserError: A file is not in COCO's format.
        """
        splits: dict[str, Samples] = {}
        annotations = self._read()
        folders = {split: folder.name for split, (_, folder) in self.split_files().items()}
        for split, folder in (folders or {_PLAIN: _PLAIN}).items():
            known = annotations[split]
            places = np.arange(len(known))
            if split == "train":
                places = places[known.num_objects > 0]
            names = [f"{folder}/{known.names[place]}" for place in places]
            self._places |= dict(zip(names, places.tolist(), strict=True))
            splits[split] = Samples(names, np.full(len(names), -1))
        predict = next(splits[name] for name in ("test", "val", "train", _PLAIN) if name in splits)
        if "test" in splits and not annotations["test"].num_objects.any():
            del splits["test"]  # to predict on
        mean, std = FIXED["imagenet"]
        return Source(splits, predict, self._categories.names, partial(_read_image, str(self.root)), mean, std)

    @property
    def table_passes(self) -> float:
        """Of the 3× schedule."""
        return 36

    @property
    def category_ids(self) -> list[int]:
        """The files' ids, by label."""
        return self._categories.ids

    def image_ids(self, samples: Samples) -> list[int]:
        """The files' ids of a split's images, by index."""
        known, places = self._of(samples)
        return [int(known.image_ids[place]) for place in places]

    @property
    def predict_image_ids(self) -> list[int]:
        """Ids of the images that are predicted, by index."""
        return self.image_ids(self.source.predict)

    @property
    def is_annotated(self) -> bool:
        """Whether there are annotation files."""
        return bool(self.split_files())

    def smallest_image(self) -> tuple[str, int]:
        """Name and shorter side, in pixels, of the image of all splits whose shorter side is least, as stored or when resized."""
        least: list[tuple[int, str]] = []
        for annotations in self._read().values():
            for name, (height, width) in zip(annotations.names, annotations.sizes.tolist(), strict=True):
                least.append((min(height, width, *fit(height, width, self.image_size, self.max_size)), name))
        side, name = min(least)
        return name, side

    def _of(self, samples: Samples) -> tuple[Annotations, np.ndarray]:
        """The annotations of a split, and the places of its images among them."""
        folder = samples.files[0].partition("/")[0] if len(samples) else "train"
        return self._annotations[folder.removesuffix(_YEAR)], np.array([self._places[name] for name in samples.files])

    def _images(self, samples: Samples, *, training: bool) -> CocoImages:
        annotations, places = self._of(samples)
        whole = partial(whole_view, short=self.image_size, longest=self.max_size)
        augmented = partial(self.augment.build(self.image_size), longest=self.max_size)
        return CocoImages(
            samples,
            self.source.read,
            annotations=annotations,
            places=places,
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
        """Whole images, not augmented, with the truth as in the file."""
        return self._images(samples, training=False)


def _check_has_masks(path: Path, stored: dict[str, Any]) -> None:
    """Refuses a file of boxes alone where masks are wanted."""
    entries = stored["annotations"]
    if entries and not any(entry.get("segmentation") for entry in entries):
        raise UserError(
            f"{path} has boxes but no masks: no annotation has a 'segmentation'. Train on the boxes alone (data.masks=false)."
        )


def _read_image(root: str, name: str) -> np.ndarray:
    return decode(Path(root) / name)
