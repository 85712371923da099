"""What a folder of images holds: ready-made splits, classes, or images only."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import IMAGE_EXTENSIONS

LabelsMode = Literal["auto", "folders", "none"]

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NOT_THE_USERS = {"__MACOSX"}


@dataclass(frozen=True)
class Layout:
    """A folder, understood.

    Args:
        description: What was understood, in one line.
        files: All images that belong to it, as sorted POSIX paths relative to the root.
        classes: Sorted class names; empty without labels.
        class_level: Which part of a relative path names the class.
        given: The images of each split that has a folder of its own; empty if none has.
    """

    description: str
    files: list[str]
    classes: list[str]
    class_level: int
    given: dict[str, list[str]]

    def labels(self) -> dict[str, int]:
        """The label of every image, -1 without labels."""
        if not self.classes:
            return dict.fromkeys(self.files, -1)
        number = {name: label for label, name in enumerate(self.classes)}
        return {file: number[file.split("/")[self.class_level]] for file in self.files}


def list_images(root: Path) -> list[str]:
    """Sorted relative paths of all image files: hidden ones left out, links followed.

    Raises:
        UserError: The folder does not exist, is a file, holds no images, or one that cannot be read.
    """
    if root.is_file():
        raise UserError(f"The data folder {root} is a file. Pass the folder that holds the images.")
    if not root.is_dir():
        raise UserError(f"The data folder {root} does not exist (from {Path.cwd()}). Check the path.")
    files = sorted(_walk(root))
    if not files:
        known = " ".join(sorted(IMAGE_EXTENSIONS))
        raise UserError(f"The data folder {root} holds no images, at any depth. Files of these kinds count: {known}.")
    return files


def _walk(root: Path) -> Iterator[str]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _NOT_THE_USERS)
        relative = Path(folder).relative_to(root)
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS:
                yield (relative / name).as_posix()


def _refuse(error: OSError) -> None:
    """What ``os.walk`` would pass over in silence."""
    raise UserError(
        f"The folder {error.filename} cannot be read ({error.strerror}): its images would be missing. Give yourself the "
        "right to read it, or move it away."
    )


def understand(root: Path, mode: LabelsMode = "auto") -> Layout:
    """Finds out how a folder is laid out.

    Args:
        root: The folder.
        mode: ``folders`` insists on class folders, ``none`` ignores them, ``auto`` looks.

    Raises:
        UserError: There is no such folder or no image in it, or class folders do not fit together.
    """
    files = list_images(root)
    names = {file.split("/")[0] for file in files if "/" in file}
    split_of = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
    splits = set(split_of.values())
    if "train" in splits and (len(splits) > 1 or names == set(split_of)):
        return _with_split_folders(root, mode, files, split_of)
    inside = [file for file in files if "/" in file]
    is_labelled = len(inside) == len(files) and len(names) >= 2
    if mode == "folders" and not is_labelled:
        raise UserError(
            f"labels=folders needs at least two class folders in {root} and every image in one of them, but there are "
            f"{len(names)} folder(s) with images and {len(files) - len(inside)} image(s) outside. Use labels=none, or "
            "sort the images into one folder a class."
        )
    if mode != "none" and is_labelled:
        return Layout(f"{len(names)} class folders, {len(files):,} images", files, sorted(names), 0, {})
    return Layout(f"{len(files):,} images without labels", files, [], 0, {})


def _with_split_folders(root: Path, mode: LabelsMode, files: list[str], split_of: dict[str, str]) -> Layout:
    if len(set(split_of.values())) < len(split_of):
        raise UserError(
            f"{root} holds two folders for the same split: {', '.join(sorted(split_of))}. Keep one of them, or pass "
            "the folder that holds the right ones."
        )
    given: dict[str, list[str]] = {split: [] for split in sorted(split_of.values())}
    for file in files:
        split = split_of.get(file.split("/")[0]) if "/" in file else None
        if split is not None:
            given[split].append(file)
    kept = sorted(file for split in given.values() for file in split)
    ignored = len(files) - len(kept)
    aside = f"; {ignored:,} images outside these folders ignored" if ignored else ""
    counts = ", ".join(f"{split} {len(given[split]):,}" for split in ("train", "val", "test") if split in given)
    classes = [] if mode == "none" else _classes_in(root, mode, given)
    labelled = f"{len(classes)} class folders in each" if classes else "without labels"
    return Layout(f"split folders ({counts}) {labelled}{aside}", kept, classes, 1, given)


def _classes_in(root: Path, mode: LabelsMode, given: dict[str, list[str]]) -> list[str]:
    """The sorted names of train's class folders, after checking that the other splits fit; [] without labels."""
    loose = Counter(split for split, files in given.items() for file in files if file.count("/") < 2)
    classes = {split: {file.split("/")[1] for file in files if file.count("/") >= 2} for split, files in given.items()}
    if loose["train"] or len(classes["train"]) < 2:
        if mode == "auto":
            return []
        raise UserError(
            f"labels=folders needs at least two class folders in {root}/train and every image in one of them, but "
            f"there are {len(classes['train'])} and {loose['train']} image(s) outside. Use labels=none, or sort them."
        )
    for split in sorted(given.keys() - {"train"}):
        if loose[split]:
            raise UserError(
                f"train of {root} has class folders, but {loose[split]} image(s) of {split} lie outside of any. Sort "
                f"them into the class folders of train, move that folder away, or use labels=none."
            )
        unknown = sorted(classes[split] - classes["train"])
        if unknown:
            raise UserError(
                f"{split} of {root} has classes that train lacks: {', '.join(unknown)}. train has: "
                f"{', '.join(sorted(classes['train']))}. Rename or move these folders, or use labels=none."
            )
    return sorted(classes["train"])
