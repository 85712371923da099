"""The images and objects of a COCO annotation file, kept in little memory."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.annotations import rle
from lit_splitmask.annotations.coco import Categories, Stored
from lit_splitmask.errors import UserError

BOX_ONLY = "with a box but no mask"

_LEAST_NUMBERS = 6  # of a polygon: three points
_MOST_COUNTS = 2**20  # characters of compressed run lengths
_NO_MASK = "no mask"  # key of a checked object: why it has none


class CheckedFile:
    """The images and objects of one file, each checked, before it is decided whether masks are trained.

    Args:
        path: The file, for messages.
        stored: Its content.
        categories: Those of all files of the set.
        masks: Whether masks may be trained; if not, they are not looked at.

    Attributes:
        images: The images, in the order of their ids, as COCO's evaluation takes them.
        objects: The objects of each image that have a valid box; with ``segmentation`` if they have a valid mask.
        faults: Numbers of objects that cannot be used at all, by fault.
        num_listed: (K,) int64, all objects of each class in the file: crowds and objects that cannot be used too.

    Raises:
        UserError: An object belongs to no image or category of the file.
    """

    def __init__(self, path: Path, stored: Stored, categories: Categories, *, masks: bool) -> None:
        self.path = path
        self.images = sorted(stored["images"], key=lambda image: image["id"])
        self.objects: list[list[dict[str, Any]]] = [[] for _ in self.images]
        self.faults = Counter[str]()
        self.num_listed = np.zeros(len(categories.ids), dtype=np.int64)
        row_of = {image["id"]: row for row, image in enumerate(self.images)}
        label_of = categories.label_of()
        for entry in stored["annotations"]:
            row = row_of.get(entry["image_id"])
            if row is None:
                raise UserError(
                    f"{path} has an annotation of image {entry['image_id']!r}, which is not among its images: the file is "
                    "damaged or was cut. Remove the annotation, or add the image."
                )
            if entry["category_id"] not in label_of:
                raise UserError(
                    f"{path} has an annotation of category {entry['category_id']!r}, which is not among the categories "
                    f"({', '.join(map(str, categories.ids[:10]))}, …): correct it."
                )
            self.num_listed[label_of[entry["category_id"]]] += 1
            image = self.images[row]
            checked = check_object(entry, label_of, image["height"], image["width"], masks=masks)
            if isinstance(checked, str):
                self.faults[checked] += 1
            else:
                self.objects[row].append(checked)

    def without_mask(self) -> Counter[str]:
        """Numbers of objects that have a box but no mask that can be used, by fault; crowds counted too."""
        return Counter(str(one[_NO_MASK]) for objects in self.objects for one in objects if _NO_MASK in one)

    def masked_by_class(self, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Objects of each class, and those with a mask, crowds not counted: two (num_classes,) int64."""
        singles = [one for objects in self.objects for one in objects if not one["iscrowd"]]
        labels = np.array([one["label"] for one in singles], dtype=np.int64)
        has_mask = np.array(["segmentation" in one for one in singles], dtype=bool)
        return np.bincount(labels, minlength=num_classes), np.bincount(labels[has_mask], minlength=num_classes)


class Annotations:
    """The images and objects of one file.

    Objects are kept as text and parsed when they are asked for, since workers would copy the many small objects of a large set.

    Args:
        checked: The file.
        masks: Whether objects need masks; those without one are left out then.

    Attributes:
        path: The file, for messages.
        image_ids: (N,) int64, ascending.
        sizes: (N, 2) int32, heights and widths.
        num_objects: (N,) int32, crowds not counted.
        num_crowds: (N,) int32.
    """

    def __init__(self, checked: CheckedFile, *, masks: bool) -> None:
        self.path = checked.path
        images = checked.images
        self.image_ids = np.array([image["id"] for image in images], dtype=np.int64)
        self.sizes = np.array([(image["height"], image["width"]) for image in images], dtype=np.int32).reshape(-1, 2)
        self.num_objects = np.zeros(len(images), dtype=np.int32)
        self.num_crowds = np.zeros(len(images), dtype=np.int32)
        self._new_labels: list[int] | None = None
        texts, labels = [], []
        for row, found in enumerate(checked.objects):
            objects = [_as_stored(one, masks=masks) for one in found if not masks or "segmentation" in one]
            of_singles = [one["label"] for one in objects if not one["iscrowd"]]
            self.num_crowds[row], self.num_objects[row] = len(objects) - len(of_singles), len(of_singles)
            texts.append(json.dumps(objects).encode())
            labels += of_singles
        self._labels = np.array(labels, dtype=np.int16)  # of all objects but crowds
        self._ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        self._text = np.frombuffer(b"".join(texts), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.image_ids)

    def objects(self, row: int) -> list[dict[str, Any]]:
        """The objects of an image, in the file's order.

        Returns:
            For each ``label``, ``bbox`` (left, top, width, height), ``iscrowd``, ``area``, and with masks ``segmentation``.
        """
        start = 0 if row == 0 else int(self._ends[row - 1])
        objects: list[dict[str, Any]] = json.loads(self._text[start : int(self._ends[row])].tobytes())
        if self._new_labels is not None:
            objects = [{**one, "label": self._new_labels[one["label"]]} for one in objects]
        return objects

    def relabel(self, new_labels: Sequence[int] | None) -> None:
        """Replaces every label by another, such as that of a trained network; None for the labels of the files."""
        self._new_labels = None if new_labels is None else list(new_labels)

    def num_by_class(self, num_classes: int, rows: np.ndarray) -> np.ndarray:
        """Objects of each class in some images, crowds not counted: (num_classes,) int64. The labels are those of the files."""
        is_counted = np.zeros(len(self), dtype=bool)
        is_counted[rows] = True
        return np.bincount(self._labels[np.repeat(is_counted, self.num_objects)], minlength=num_classes)


def describe_faults(checked: CheckedFile, *, masks: bool) -> str:
    """The objects of a file that are left out, in one line; empty if none is."""
    faults = checked.faults + (checked.without_mask() if masks else Counter())
    if not faults:
        return ""
    listed = ", ".join(f"{count:,} {fault}" for fault, count in faults.most_common())
    way = " To keep those with boxes only, train without masks: --data.masks=false." if faults[BOX_ONLY] else ""
    return f"{checked.path}: objects are left out: {listed}.{way}"


def _as_stored(one: dict[str, Any], *, masks: bool) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != _NO_MASK and (masks or key != "segmentation")}


def check_object(
    entry: dict[str, Any], label_of: dict[int, int], height: int, width: int, *, masks: bool
) -> dict[str, Any] | str:
    """An object as it is kept, or what is wrong with its box; what is wrong with its mask is in it."""
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
    mask = _check_mask(entry.get("segmentation"), height, width)
    return {**checked, _NO_MASK: mask} if isinstance(mask, str) else {**checked, "segmentation": mask}


def _check_mask(segmentation: Any, height: int, width: int) -> list[Any] | dict[str, Any] | str:
    """A mask as it is kept, or what is wrong with it."""
    if isinstance(segmentation, list):
        if not any(segmentation):
            return BOX_ONLY
        polygons = [one for one in segmentation if _is_polygon(one)]
        if not polygons:
            return "with polygons of fewer than 3 points or of half a point"
        far = 2 * max(height, width)
        if not all(-far <= min(one) and max(one) <= 2 * far and not math.isnan(sum(one)) for one in polygons):
            return "with polygons far outside their images"
        return polygons
    if not (isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys()):
        return BOX_ONLY
    if segmentation["size"] != [height, width] or not isinstance(segmentation["counts"], str | list):
        return "with run lengths of a different size than their images"
    if not _fills(segmentation["counts"], height * width):
        return "with run lengths that do not fill their images"
    return segmentation


def _fills(counts: str | list[Any], num_pixels: int) -> bool:
    """Whether runs, compressed or not, are of as many pixels; pycocotools does not look."""
    if len(counts) > min(_MOST_COUNTS, 8 * (num_pixels + 1)):
        return False
    try:
        runs = rle.run_lengths(counts) if isinstance(counts, str) else counts
    except ValueError:
        return False
    return all(isinstance(run, int) and run >= 0 for run in runs) and sum(runs) == num_pixels


def _is_polygon(one: Any) -> bool:
    """Whether it is a list of x, y, x, y, … of at least three points."""
    return (
        isinstance(one, list) and len(one) >= _LEAST_NUMBERS and len(one) % 2 == 0 and {*map(type, one)} <= {int, float}
    )
