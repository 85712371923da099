"""COCO's annotation files: read, checked, and kept in little memory."""

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.annotations import rle
from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import IMAGE_EXTENSIONS, read_shape

log = logging.getLogger(__name__)

_KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
_LEAST_NUMBERS = 6  # of a polygon: three points
_MOST_ID = 2**63


@dataclass(frozen=True)
class Categories:
    """The classes of a set; labels are places in it.

    Attributes:
        ids: Those of the files, rising; with gaps, from 0 or from 1.
        names: All different.
    """

    ids: list[int]
    names: list[str]

    def label_of(self) -> dict[int, int]:
        """From a file's id to the label."""
        return {number: label for label, number in enumerate(self.ids)}


class Annotations:
    """The images and objects of one file.

    Objects are kept as text and parsed when they are asked for, since workers would copy the many small objects of a large set.

    Args:
        path: The file, for messages.
        stored: What it holds.
        categories: Of all files of the set.
        masks: Whether objects need masks.

    Attributes:
        names: Of the image files, in the order of the images' ids, as COCO's evaluation takes them.
        image_ids: (N,) int64.
        sizes: (N, 2) int64, heights and widths.
        num_objects: (N,) int64, crowds not counted.
    """

    def __init__(self, path: Path, stored: dict[str, Any], categories: Categories, *, masks: bool) -> None:
        self.path = path
        images = sorted(stored["images"], key=lambda image: image["id"])
        self.names = [str(image["file_name"]) for image in images]
        self.image_ids = np.array([image["id"] for image in images], dtype=np.int64)
        self.sizes = np.array([(image["height"], image["width"]) for image in images], dtype=np.int64).reshape(-1, 2)
        self.num_objects = np.zeros(len(images), dtype=np.int64)
        by_image: list[list[dict[str, Any]]] = [[] for _ in images]
        place_of = {number: place for place, number in enumerate(self.image_ids.tolist())}
        label_of, faults = categories.label_of(), Counter[str]()
        for entry in stored["annotations"]:
            place = place_of.get(entry["image_id"])
            if place is None:
                raise UserError(
                    f"{path} has an annotation of image {entry['image_id']!r}, which is not among its images: the file is "
                    "damaged or was cut. Take it out, or add the image."
                )
            if entry["category_id"] not in label_of:
                raise UserError(
                    f"{path} has an annotation of category {entry['category_id']!r}, which is not among the categories "
                    f"({', '.join(map(str, categories.ids[:10]))}, …): correct it."
                )
            height, width = self.sizes[place].tolist()
            checked = _check(entry, label_of, height, width, masks=masks)
            if isinstance(checked, str):
                faults[checked] += 1
                continue
            by_image[place].append(checked)
            self.num_objects[place] += not checked["iscrowd"]
        if faults:
            listed = ", ".join(f"{count:,} {fault}" for fault, count in faults.most_common())
            log.warning("%s: objects were left out: %s.", path, listed)
        texts = [json.dumps(objects).encode() for objects in by_image]
        self._ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        self._text = np.frombuffer(b"".join(texts), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.names)

    def objects(self, place: int) -> list[dict[str, Any]]:
        """Of an image, in the file's order.

        Returns:
            For each ``label``, ``bbox`` (left, top, width, height), ``iscrowd``, ``area``, and with masks ``segmentation``.
        """
        start = 0 if place == 0 else int(self._ends[place - 1])
        return list(json.loads(self._text[start : int(self._ends[place])].tobytes()))


def _check(
    entry: dict[str, Any], label_of: dict[int, int], height: int, width: int, *, masks: bool
) -> dict[str, Any] | str:
    """An object as it is kept, or what is wrong with it."""
    left, top, w, h = (float(value) for value in entry["bbox"])
    if not (0 < w < math.inf and 0 < h < math.inf):  # nan too, here and below
        return "with boxes without area"
    if not (min(left + w, width) > max(left, 0) and min(top + h, height) > max(top, 0)):
        return "with boxes outside their images"
    checked: dict[str, Any] = {
        "label": label_of[entry["category_id"]],
        "bbox": [left, top, w, h],
        "iscrowd": int(entry.get("iscrowd") or 0),
        "area": w * h if entry.get("area") is None else float(entry["area"]),
    }
    if not masks:
        return checked
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list):
        segmentation = [one for one in segmentation if _is_polygon(one)]
        if not segmentation:
            return "with polygons of fewer than 3 points or of half a point"
        far = 2 * max(height, width)
        if not all(-far <= value <= 2 * far for one in segmentation for value in one):  # nan too
            return "with polygons far outside their images"
    elif not (isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys()):
        return "without a mask"
    elif segmentation["size"] != [height, width] or not isinstance(segmentation["counts"], str | list):
        return "with run lengths of another size than their images"
    elif not _fills(segmentation["counts"], height * width):
        return "with run lengths that do not fill their images"
    return {**checked, "segmentation": segmentation}


def _fills(counts: str | list[Any], num_pixels: int) -> bool:
    """Whether runs, compressed or not, are of as many pixels; pycocotools does not look."""
    try:
        runs = rle.run_lengths(counts) if isinstance(counts, str) else counts
    except ValueError:
        return False
    return all(isinstance(run, int) and run >= 0 for run in runs) and sum(runs) == num_pixels


def _is_polygon(one: Any) -> bool:
    """Whether it is a list of x, y, x, y, … of at least three points."""
    numbers = isinstance(one, list) and all(isinstance(value, int | float) for value in one)
    return numbers and len(one) >= _LEAST_NUMBERS and len(one) % 2 == 0


def read_file(path: Path) -> dict[str, Any]:
    """Reads an annotation file and checks that all is there.

    Raises:
        UserError: It is missing, is no JSON, or lacks something; says what.
    """
    if not path.is_file():
        raise UserError(
            f"There is no annotation file {path}: a COCO folder has annotations/instances_train.json and …_val.json."
        )
    try:
        stored = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): it is damaged or another kind of file.") from None
    for part, keys in _KEYS.items():
        entries = stored.get(part) if isinstance(stored, dict) else None
        if not isinstance(entries, list):
            raise UserError(
                f"{path} is not a COCO annotation file: it has no list {part!r} at its top. COCO's object detection format has "
                "images, annotations and categories (https://cocodataset.org/#format-data)."
            )
        for number, entry in enumerate(entries):
            missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if missing:
                raise UserError(
                    f"{path} is not a COCO annotation file: entry {number} of {part!r} lacks {', '.join(map(repr, missing))}."
                )
    _check_values(path, stored)
    return dict(stored)


def _check_values(path: Path, stored: dict[str, Any]) -> None:
    for part in ("images", "categories"):
        ids = [entry["id"] for entry in stored[part]]
        whole = all(isinstance(number, int) and abs(number) < _MOST_ID for number in ids)
        if not whole or len(set(ids)) < len(ids):
            raise UserError(
                f"{path}: the ids of {part!r} must be whole numbers that are all different, below 2^63. Correct them."
            )
    names = Counter(str(image["file_name"]) for image in stored["images"])
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(
            f"{path} lists the image {twice[0]} {names[twice[0]]} times: join its entries and their annotations."
        )
    for image in stored["images"]:
        if not all(isinstance(image[side], int) and image[side] > 0 for side in ("height", "width")):
            raise UserError(
                f"{path}: the image {image['file_name']} has height {image['height']!r} and width {image['width']!r}, but they "
                "must be whole numbers of pixels."
            )
    for entry in stored["annotations"]:
        for key in ("image_id", "category_id", "iscrowd", "area"):
            value = entry.get(key)
            is_number = isinstance(value, int | float) and (key == "area" or float(value).is_integer())
            if not is_number and (value is not None or key in _KEYS["annotations"]):
                raise UserError(
                    f"{path}: {key} of an annotation of image {entry['image_id']!r} is {value!r}, which is no number. Correct it."
                )
        box = entry["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)):
            raise UserError(
                f"{path}: the bbox {box!r} of an annotation of image {entry['image_id']} is not [left, top, width, height]."
            )


def categories_of(files: dict[Path, dict[str, Any]]) -> Categories:
    """The classes that all files of a set share: those that no object has and that only repeat another's name are left out.

    Raises:
        UserError: Files disagree about a category's name.
    """
    names: dict[int, str] = {}
    for path, stored in files.items():
        for category in stored["categories"]:
            number, name = int(category["id"]), str(category["name"])
            if names.setdefault(number, name) != name:
                raise UserError(
                    f"The annotation files disagree: category {number} is {names[number]!r} in one and {name!r} in {path}. Give "
                    "all files the same categories."
                )
    used = {entry["category_id"] for stored in files.values() for entry in stored["annotations"]}
    count = Counter(names.values())
    kept = [number for number in sorted(names) if number in used or count[names[number]] == 1]
    kept_names = Counter(names[number] for number in kept)
    return Categories(kept, [names[n] if kept_names[names[n]] == 1 else f"{names[n]} ({n})" for n in kept])


def check_images(folder: Path, names: Sequence[str]) -> None:
    """Checks that the images are there.

    Raises:
        UserError: Some are not; names a few and says how many.
    """
    present = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    missing = [name for name in names if name not in present and not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(names):,} annotated images are missing in {folder}: {', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}. Put them there, or take them out of the annotation file."
        )


def without_objects(root: Path) -> Annotations:
    """All images in a folder, numbered from 1, for prediction.

    Raises:
        UserError: There are none, or one cannot be opened.
    """
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
    if not paths:
        raise UserError(
            f"There are neither annotations (annotations/instances_train.json) nor images in {root}: check the path."
        )
    images = []
    for number, path in enumerate(paths, start=1):
        height, width = read_shape(path)
        images.append({"id": number, "file_name": str(path.relative_to(root)), "height": height, "width": width})
    return Annotations(root, {"images": images, "annotations": []}, Categories([], []), masks=False)


def looks_like_coco(root: Path) -> bool:
    """Whether a folder has annotations of training images in COCO's format."""
    return any((root / "annotations" / f"instances_{name}.json").is_file() for name in ("train", "train2017"))
