"""Readers for the lists of published datasets: class folders, JSON, and text lines of a path and a label."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines, read_text
from lit_splitmask.images.tree import IGNORED_FOLDERS, list_images

DEPTH = 2
"""How many levels below the root a dataset may be."""

_TRIED = 3


@dataclass(frozen=True)
class Listing:
    """The images of a published dataset.

    Attributes:
        train: Label by training image, which is a path relative to the root; -1 without labels.
        test: Label by test image; empty without test images.
        class_names: Class names by label; empty without labels.
    """

    train: dict[str, int]
    test: dict[str, int]
    class_names: list[str]


def find_folder(root: Path, *names: str, depth: int = DEPTH) -> str | None:
    """The folder that holds all of the names, which may be paths: the root, or the one closest below it.

    Args:
        root: The folder to search.
        names: Files or folders relative to the result.
        depth: How many levels below the root are searched.

    Returns:
        The path relative to the root, empty or with a slash at its end; None if there is no such folder.
    """
    folders = [""]
    for level in range(depth + 1):
        if level:
            folders = [f"{folder}{name}/" for folder in folders for name in _folders_in(root / folder)]
        for folder in folders:
            if all((root / folder / name).exists() for name in names):
                return folder
    return None


def _folders_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return sorted(name for name in names if name not in IGNORED_FOLDERS)


def where_images_are(root: Path, files: Iterable[str], otherwise: str = "") -> str:
    """The folder that listed paths start from, relative to the root: that of the first few images.

    Args:
        root: The folder to search.
        files: Listed paths.
        otherwise: The result if none of the first few images exists.
    """
    for _, file in zip(range(_TRIED), files, strict=False):
        folder = find_folder(root, file)
        if folder is not None:
            return folder
    return otherwise


def below(folder: str, labels: Mapping[str, int]) -> dict[str, int]:
    """Labels by image, the paths starting with a folder."""
    return {f"{folder}{file}": label for file, label in labels.items()}


def by_class_folder(root: Path, split: str) -> dict[str, str]:
    """Class name by image, from ``<split>/<class>/<image>``.

    Raises:
        UserError: An image is outside the class folders.
    """
    files = list_images(root / split)
    loose = next((file for file in files if "/" not in file), None)
    if loose is not None:
        raise UserError(
            f"{root / split / loose} is outside the class folders: sort the images into one folder per class."
        )
    return {f"{split}/{file}": file.split("/")[0] for file in files}


def from_class_folders(train: Mapping[str, str], test: Mapping[str, str], where: str) -> Listing:
    """The listing of images by class name.

    Args:
        train, test: Class name by image.
        where: The layout, for the message.

    Raises:
        UserError: A test image has a class that train lacks.
    """
    names = sorted(set(train.values()))
    unknown = next((file for file, name in test.items() if name not in set(names)), None)
    if unknown is not None:
        raise UserError(
            f"{unknown} has the class {test[unknown]}, which train lacks: sort the test images into one folder per class. {where}"
        )
    number = {name: label for label, name in enumerate(names)}
    return Listing(
        {file: number[name] for file, name in train.items()},
        {file: number[name] for file, name in test.items()},
        names,
    )


def without_labels(root: Path, train: str, test: str) -> Listing:
    """All images of two folders, without labels."""
    labels = [
        dict.fromkeys((f"{folder}/{file}" for file in list_images(root / folder)), -1) for folder in (train, test)
    ]
    return Listing(labels[0], labels[1], [])


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: It cannot be read, or is not valid JSON.
    """
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
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
