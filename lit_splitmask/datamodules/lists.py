"""Readers for the lists of published datasets: class folders, JSON, and text lines of a path and a label."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines
from lit_splitmask.images.layout import list_images


@dataclass(frozen=True)
class Listing:
    """The images of a published dataset.

    Attributes:
        train: Label by training image, which is a path relative to the root; -1 without labels.
        test: Label by test image.
        class_names: Class names by label; empty without labels.
    """

    train: dict[str, int]
    test: dict[str, int]
    class_names: list[str]


def by_class_folder(root: Path, split: str) -> dict[str, str]:
    """Class name by image, from ``<split>/<class>/<image>``.

    Raises:
        UserError: An image lies outside the class folders.
    """
    files = list_images(root / split)
    loose = next((file for file in files if "/" not in file), None)
    if loose is not None:
        raise UserError(
            f"{root / split / loose} lies outside the class folders: sort the images into one folder per class."
        )
    return {f"{split}/{file}": file.split("/")[0] for file in files}


def without_labels(root: Path, train: str, test: str) -> Listing:
    """All images of two folders, without labels."""
    labels = [
        dict.fromkeys((f"{folder}/{file}" for file in list_images(root / folder)), -1) for folder in (train, test)
    ]
    return Listing(labels[0], labels[1], [])


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: It is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): unpack it again.") from error


def read_labelled(path: Path) -> dict[str, int]:
    """Label by image, from a text file with a path and a label on each line.

    Raises:
        UserError: A line is something else.
    """
    labels = {}
    for number, line in enumerate(read_lines(path), start=1):
        file, _, label = line.rpartition(" ")
        if not file or not label.isdecimal():
            raise UserError(f"Line {number} of {path} is {line!r}, but it must be a path and a label (0, 1, …).")
        labels[file] = int(label)
    return labels


def check_labels(labels: dict[str, int], num_classes: int, root: Path) -> None:
    """Checks that labels are in [0, num_classes).

    Raises:
        UserError: One is not.
    """
    wrong = next(((file, label) for file, label in labels.items() if not 0 <= label < num_classes), None)
    if wrong is not None:
        raise UserError(
            f"The lists in {root} give {wrong[0]} the label {wrong[1]}, but there are {num_classes} classes (from 0): the lists "
            "are damaged or of another dataset."
        )
