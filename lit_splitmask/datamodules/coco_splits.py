"""The splits of a COCO folder: images that can be read, none in two of them, and a val split cut from train if there is none."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lit_splitmask.annotations.coco_files import WAYS
from lit_splitmask.annotations.coco_objects import Annotations
from lit_splitmask.annotations.coco_set import CocoSet, KnownImages
from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import DecodeError, open_image, orientation
from lit_splitmask.images.examined import Examined
from lit_splitmask.images.names import Names
from lit_splitmask.images.split import cut, drop_shared, group_by_hash
from lit_splitmask.loading.prediction import PredictionFiles

MOST_UNREADABLE = 0.5
"""Fraction of the images that may be left out because they cannot be read."""

_SHOWN = 10
_SEED = 0  # of the cut, so that runs with different seeds have the same val
_SEPARATOR = "//"  # no relative path contains it


@dataclass(frozen=True)
class Part:
    """The images of a split.

    Attributes:
        annotations: The images and objects of the annotation file that they are in.
        rows: (n,) int64, their indices in it, ascending.
        files: Their paths relative to the root.
    """

    annotations: Annotations
    rows: np.ndarray
    files: Names


@dataclass(frozen=True)
class Predicted:
    """The images of a folder that is only predicted on.

    Attributes:
        shapes: Heights and widths of the images that can be read.
        ids: Their ids.
        all_known: Whether annotation files give all of them an id of their own.
        categories: Ids of the categories in the annotation files by name.
    """

    shapes: Sequence[tuple[int, int]]
    ids: list[int]
    all_known: bool
    categories: Mapping[str, int]

    @classmethod
    def of(cls, found: PredictionFiles, known: KnownImages) -> "Predicted":
        """Gives images without an id of their own ids above the largest, in the order of their paths."""
        every = sorted([*found.readable, *found.problems])
        new = itertools.count(max(0, known.largest) + 1)
        ids = {file: known.ids[file] if file in known.ids else next(new) for file in every}
        all_known = bool(known.ids) and all(file in known.ids for file in found.readable)
        return cls(found.shapes, [ids[file] for file in found.readable], all_known, known.categories)

    def subset(self, indices: Sequence[int]) -> "Predicted":
        """The images at these indices, in that order."""
        return replace(self, shapes=[self.shapes[i] for i in indices], ids=[self.ids[i] for i in indices])


def make_splits(coco: CocoSet, examined: Mapping[str, Examined], val_share: float) -> tuple[dict[str, Part], list[str]]:
    """The images of each split, and what the user should know about them, one line each.

    Images that cannot be read are left out, then images of train and val that test has too, and those of train that val has.
    Without val, whole images are cut from train, identical ones together.

    Args:
        coco: The annotation files.
        examined: What is known about the images.
        val_share: Fraction of the training images for val, if there is none.

    Raises:
        UserError: Most images cannot be read.
    """
    notes = _unreadable(coco, examined)
    hashes = {
        f"{split}{_SEPARATOR}{file}": examined[file].hash
        for split, files in coco.files.items()
        for file in files
        if examined[file].hash
    }
    given = {split: [key for key in hashes if key.startswith(split + _SEPARATOR)] for split in coco.files}
    splits, dropped = drop_shared(given, hashes)
    for pair in sorted({(entry.split, entry.same_split) for entry in dropped}):
        shared = [entry for entry in dropped if (entry.split, entry.same_split) == pair]
        first = shared[0]
        notes.append(
            f"{len(shared):,} image(s) of {pair[0]} are left out, since {pair[1]} has the same pixels, such as "
            f"{_file(first.file)} and {_file(first.same_as)}."
        )
    if "train" in splits and not splits.get("val"):
        kept, held_out = _cut(coco, splits["train"], hashes, val_share)
        notes.append(_about_cut(len(splits["train"]), len(held_out), val_share))
        splits |= {"train": kept, "val": held_out}
    parts = {}
    for split, keys in splits.items():
        if keys:
            source = keys[0].partition(_SEPARATOR)[0]
            parts[split] = _part(coco, source, {_file(key) for key in keys}, only_with_objects=split == "train")
    return parts, notes


def _file(key: str) -> str:
    return key.partition(_SEPARATOR)[2]


def _part(coco: CocoSet, source: str, files: set[str], *, only_with_objects: bool) -> Part:
    annotations, names = coco.annotations[source], list(coco.files[source])
    rows = np.array([row for row, name in enumerate(names) if name in files], dtype=np.int64)
    if only_with_objects:
        rows = rows[annotations.num_objects[rows] > 0]
    return Part(annotations, rows, Names(names[row] for row in rows.tolist()))


def _unreadable(coco: CocoSet, examined: Mapping[str, Examined]) -> list[str]:
    """Names the images that cannot be read."""
    files = list(dict.fromkeys(file for of_split in coco.files.values() for file in of_split))
    bad = [file for file in files if examined[file].problem]
    if len(bad) > MOST_UNREADABLE * len(files):
        raise UserError(
            f"{len(bad):,} of the {len(files):,} annotated images cannot be read. {examined[bad[0]].problem} Replace them, or "
            "remove them from the annotation files."
        )
    notes = [f"{examined[file].problem} It is left out." for file in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        notes.append(f"{len(bad) - _SHOWN:,} more images cannot be read and are left out: {', '.join(bad[_SHOWN:])}.")
    return notes


def _cut(coco: CocoSet, train: list[str], hashes: Mapping[str, str], val_share: float) -> tuple[list[str], list[str]]:
    """Cuts val from train, so that every class stays in train; val is empty if there are too few images with objects."""
    annotations, num_classes = coco.annotations["train"], len(coco.categories.ids)
    row_of = {f"train{_SEPARATOR}{file}": row for row, file in enumerate(coco.files["train"])}
    has_objects = {key: int(annotations.num_objects[row_of[key]] > 0) for key in train}
    splits = cut(sorted(train), hashes, has_objects, shares={"val": val_share}, seed=_SEED)

    def count(keys: list[str]) -> np.ndarray:
        return annotations.num_by_class(num_classes, np.array([row_of[key] for key in keys], dtype=np.int64))

    kept, held_out = splits["train"], splits["val"]
    is_lost = (count(train) > 0) & (count(kept) == 0)
    for group in group_by_hash(held_out, hashes) if is_lost.any() else ():
        has_class = count(group) > 0
        if (is_lost & has_class).any():
            is_lost &= ~has_class
            kept, held_out = [*kept, *group], [key for key in held_out if key not in group]
    if not any(has_objects[key] for key in held_out):
        return train, []
    return kept, held_out


def _about_cut(num_train: int, num_cut: int, val_share: float) -> str:
    if num_cut:
        return (
            f"There is no val split, so it is cut from train: {num_cut:,} of the {num_train:,} images (val_share={val_share:g}), "
            "which are not trained on."
        )
    why = "val_share=0" if val_share == 0 else f"{num_train:,} training images are too few to cut one"
    return f"There is no val split ({why}): the last checkpoint is kept, since none can be chosen by its score."


def check_sizes(root: Path, coco: CocoSet, examined: Mapping[str, Examined]) -> None:
    """Checks that the images have the sizes that the annotation files say.

    Raises:
        UserError: Some do not; names them.
    """
    for split, annotations in coco.annotations.items():
        listed = zip(coco.files[split], annotations.sizes.tolist(), strict=True)
        wrong = [
            (file, height, width)
            for file, (height, width) in listed
            if not examined[file].problem and (examined[file].height, examined[file].width) != (height, width)
        ]
        if wrong:
            file, height, width = wrong[0]
            others = [name for name, *_ in wrong[1:]]
            more = f" The same is true of {_some(others)}." if others else ""
            raise UserError(
                f"{len(wrong):,} of the {len(annotations):,} images of {annotations.path} have a different size than it says, so "
                f"their boxes would not fit: {file} is {examined[file].width} × {examined[file].height} px (width × height), not "
                f"{width} × {height} px{_turned(root / file, examined[file], height, width)}.{more} Replace the images, or "
                "correct the file."
            )


def _some(files: list[str]) -> str:
    return ", ".join(files[:_SHOWN]) + (f", … ({len(files) - _SHOWN:,} more)" if len(files) > _SHOWN else "")


def _turned(path: Path, found: Examined, height: int, width: int) -> str:
    """Explains a size that fits before the image is turned upright."""
    if (found.width, found.height) != (height, width):
        return ""
    try:
        with open_image(path) as image:
            is_turned = orientation(image) >= 5
    except (OSError, DecodeError):
        return ""
    if not is_turned:
        return ": width and height are swapped"
    return (
        ": the size in the file is that before the rotation in its EXIF block, so the objects were marked on an image that lay "
        "on its side. Rotate their boxes, or remove the rotation from the images (exiftool -Orientation= FILES)"
    )


def check_classes(coco: CocoSet, train: Part) -> list[str]:
    """Checks that every class that the training annotations have can be trained on.

    Returns:
        A line about the classes that only other splits have.

    Raises:
        UserError: All objects of a class are crowds or left out.
    """
    names = coco.categories.names
    usable = train.annotations.num_by_class(len(names), train.rows)
    in_file = coco.num_listed["train"]
    for label in np.flatnonzero((in_file > 0) & (usable == 0)).tolist():
        boxes = ", train boxes alone (--data.masks=false) if it has no masks" if coco.masks else ""
        raise UserError(
            f"The class {names[label]} has {in_file[label]:,} object(s) in {train.annotations.path}, but none to train on: all "
            "are crowds (iscrowd: 1), or unusable, or in images that are left out (the lines above say why). Correct the "
            f"file (iscrowd: 0, if each is a single object){boxes}, or remove the class from it."
        )
    untrained = [names[label] for label in np.flatnonzero(in_file == 0).tolist()]
    if not untrained:
        return []
    listed = ", ".join(untrained[:10]) + (", …" if len(untrained) > 10 else "")
    return [
        f"No image of train has objects of {listed}, but val or test has: they cannot be learned, and their AP will be 0."
    ]


def check_objects(coco: CocoSet, parts: Mapping[str, Part], split: str) -> None:
    """Checks that there are objects to train on, or to evaluate in a val split.

    Raises:
        UserError: There are none.
    """
    annotations = coco.annotations.get(split)
    if annotations is None:
        if split == "train":
            found = ", ".join(f"{one.path} for {name}" for name, one in coco.annotations.items())
            raise UserError(f"There are no annotations to train on (there is {found}). Layouts that are read: {WAYS}.")
    elif not annotations.num_objects.any():
        purpose = "train on" if split == "train" else "evaluate"
        raise UserError(
            f"{annotations.path} has no object to {purpose} in {len(annotations):,} images (objects without area, objects "
            "with polygons of fewer than 3 points, and crowds do not count). Annotate some, or remove the file. To pre-train "
            "on images alone, use lit-splitmask pretrain."
        )
    elif split == "train" and not (split in parts and len(parts[split].files)):
        raise UserError(
            f"No image of {annotations.path} is left to train on: those with objects cannot be read, or val or test has the same "
            "pixels (the lines above say which). Add others."
        )
