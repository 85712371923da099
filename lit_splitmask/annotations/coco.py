"""COCO's annotation files: read and checked, and their categories."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_splitmask.annotations.coco_files import WAYS
from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file, read_bytes

_KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
_MOST_ID = 2**63

Stored = dict[str, Any]
"""An annotation file: ``images``, ``annotations``, ``categories``."""


@dataclass(frozen=True)
class Categories:
    """The classes of a set; labels are indices into it.

    Attributes:
        ids: Ids in the files, ascending; with gaps, from 0 or from 1.
        names: Their names, all different.
        unused: Ids, by name, of categories that no object has, and that are left out.
    """

    ids: list[int]
    names: list[str]
    unused: Mapping[str, int] = field(default_factory=dict)

    def label_of(self) -> dict[int, int]:
        """From a file's id to the label."""
        return {number: label for label, number in enumerate(self.ids)}

    def for_names(self, names: Sequence[str]) -> "Categories":
        """The same categories in the order of other names; a name that is not among them gets an id above the largest."""
        known = {**self.unused, **dict(zip(self.names, self.ids, strict=True))}
        new = itertools.count(max(known.values(), default=0) + 1)
        return Categories([known[name] if name in known else next(new) for name in names], list(names))


def read_file(path: Path) -> Stored:
    """Reads an annotation file and checks that everything is there.

    Raises:
        UserError: It is missing, is not JSON, or lacks something; says what.
    """
    if not is_file(path):
        raise UserError(f"There is no annotation file {path}. Layouts that are read: {WAYS}.")
    try:
        stored = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:  # damaged text, too long numbers, too deep nesting
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} is not valid JSON ({why}): it is damaged or another kind of file.") from None
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
    _check_ids(path, stored)
    _check_images(path, stored)
    _check_objects(path, stored)
    return dict(stored)


def read_ids(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The ids of the images of an annotation file by file name, and those of its categories by name.

    Raises:
        UserError: It is not JSON, or has no such ids.
    """
    try:
        stored = json.loads(read_bytes(path))
        images = {str(image["file_name"]): int(image["id"]) for image in stored["images"]}
        return images, {str(category["name"]): int(category["id"]) for category in stored["categories"]}
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise UserError(f"{path} has no ids of images and categories ({type(error).__name__}: {error}).") from None


def _check_ids(path: Path, stored: Stored) -> None:
    for part in ("images", "categories"):
        ids = [entry["id"] for entry in stored[part]]
        whole = all(isinstance(number, int) and abs(number) < _MOST_ID for number in ids)
        if not whole or len(set(ids)) < len(ids):
            raise UserError(f"{path}: the ids of {part!r} must be distinct whole numbers below 2^63. Correct them.")


def _check_images(path: Path, stored: Stored) -> None:
    names = Counter(str(image["file_name"]) for image in stored["images"])
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(
            f"{path} lists the image {twice[0]} {names[twice[0]]} times: merge its entries and their annotations."
        )
    for image in stored["images"]:
        if not all(isinstance(image[side], int) and 0 < image[side] < 2**31 for side in ("height", "width")):
            raise UserError(
                f"{path}: the image {str(image['file_name'])[:200]} has height {image['height']!r} and width {image['width']!r}, "
                "but they must be whole numbers of pixels."
            )


def _check_objects(path: Path, stored: Stored) -> None:
    for entry in stored["annotations"]:
        for key in ("image_id", "category_id", "iscrowd", "area"):
            value = entry.get(key)
            is_valid = _is_number(value) and (key == "area" or float(value).is_integer())
            if not is_valid and (value is not None or key in _KEYS["annotations"]):
                raise UserError(
                    f"{path}: {key} of an annotation of image {entry['image_id']!r} is {value!r}, not a number: correct it."
                )
        box = entry["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            raise UserError(
                f"{path}: the bbox {box!r} of an annotation of image {entry['image_id']} is not [left, top, width, height]."
            )


def _is_number(value: Any) -> bool:
    """Whether a value is a number that fits into 64 bits."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < _MOST_ID)


def categories_of(files: Mapping[Path, Stored]) -> Categories:
    """The classes that all files of a set share, without categories that no object has, such as Roboflow's parent category.

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
    kept = [number for number in sorted(names) if number in used] or sorted(names)
    unused = {names[number]: number for number in sorted(names) if number not in set(kept)}
    return Categories(kept, _distinct([(number, names[number]) for number in kept]), unused)


def _distinct(categories: Iterable[tuple[int, str]]) -> list[str]:
    """The names of categories; those that occur more than once get their id too."""
    pairs = list(categories)
    count = Counter(name for _, name in pairs)
    return [name if count[name] == 1 else f"{name} ({number})" for number, name in pairs]
