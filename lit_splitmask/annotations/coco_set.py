"""The annotation files of a COCO folder, read and checked together."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lit_splitmask.annotations import rle
from lit_splitmask.annotations.coco import Categories, Stored, categories_of, read_file, read_ids
from lit_splitmask.annotations.coco_boxes import check_boxes
from lit_splitmask.annotations.coco_files import Given, find_annotations
from lit_splitmask.annotations.coco_images import NamedFile, locate_images, resolve_images
from lit_splitmask.annotations.coco_objects import BOX_ONLY, Annotations, CheckedFile, describe_faults
from lit_splitmask.errors import UserError
from lit_splitmask.images.names import Names
from lit_splitmask.images.tree import Tree

log = logging.getLogger(__name__)

LEAST_MASKED = 0.9
"""Fraction of a split's objects that must have a mask for masks to be trained, unless the user asks for them."""

MOST_BOX_ONLY = 0.5
"""Fraction of a file's objects that may lack a mask if the user asks for masks."""

MOST_CROWDS = 0.1
"""Fraction of the objects of val or test that may be crowds without a note."""

_ORDER_OF_IDS = ("test", "val", "train")  # whose ids count first, where files give the same id to different images


@dataclass(frozen=True)
class CocoSet:
    """The annotation files of a folder.

    Attributes:
        annotations: The images and objects of each split.
        files: Paths of the images of each split, relative to the root, in the order of the annotations.
        categories: The classes of all splits.
        masks: Whether objects have masks.
        num_listed: (K,) int64 for each split, all objects of each class, crowds and objects that cannot be used too.
        notes: What the user should know, one line each.
    """

    annotations: dict[str, Annotations]
    files: dict[str, Names]
    categories: Categories
    masks: bool
    num_listed: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)

    def all_files(self) -> list[str]:
        """Paths of the images of all splits, each once, sorted."""
        return sorted({file for of_split in self.files.values() for file in of_split})


@dataclass(frozen=True)
class KnownImages:
    """What annotation files say about images that are only predicted on.

    Attributes:
        ids: Ids of images by path; of several images with the same id, one of test, otherwise of val.
        largest: Largest id in the files; 0 without any.
        categories: Ids of the categories by name; empty if files disagree.
    """

    ids: Mapping[str, int] = field(default_factory=dict)
    largest: int = 0
    categories: Mapping[str, int] = field(default_factory=dict)


def read_set(root: Path, given: Given, masks: bool | None) -> CocoSet | None:
    """Reads the annotation files of a folder; None if there are none.

    Args:
        root: The folder.
        given: Annotation files that the user names.
        masks: Whether to train masks; None if most objects must have one.

    Raises:
        UserError: A file cannot be used, images are missing, or masks are requested and cannot be trained.
    """
    tree = Tree.read(root)
    paths = find_annotations(root, given, tree)
    if not paths:
        return None
    rle.require()
    stored = {split: read_file(path) for split, path in paths.items()}
    notes = [check_boxes(path, stored[split], masks=masks is not False) for split, path in paths.items()]
    categories = categories_of({path: stored[split] for split, path in paths.items()})
    if categories.unused:
        unused = ", ".join(list(categories.unused)[:10]) + (", …" if len(categories.unused) > 10 else "")
        notes.append(f"Categories without objects in any annotation file are left out of the classes: {unused}.")
    checked = {
        split: CheckedFile(path, stored[split], categories, masks=masks is not False) for split, path in paths.items()
    }
    named = {
        split: NamedFile(paths[split], [str(image["file_name"]) for image in of_split.images])
        for split, of_split in checked.items()
    }
    files = resolve_images(root, named, tree)
    if masks is None:
        masks, why = _can_train_masks(checked, categories)
        notes.append(why)
    elif masks:
        _require_masks(checked, stored)
    notes += [describe_faults(of_split, masks=masks) for of_split in checked.values()]
    annotations = {split: Annotations(of_split, masks=masks) for split, of_split in checked.items()}
    notes += [_about_crowds(split, of_split) for split, of_split in annotations.items()]
    return CocoSet(
        annotations,
        {split: Names(of_split) for split, of_split in files.items()},
        categories,
        masks,
        {split: of_split.num_listed for split, of_split in checked.items()},
        [note for note in notes if note],
    )


def _require_masks(checked: Mapping[str, CheckedFile], stored: Mapping[str, Stored]) -> None:
    """Raises an error if most objects of a file have no mask."""
    for split, of_split in checked.items():
        total, num_without = len(stored[split]["annotations"]), of_split.without_mask()[BOX_ONLY]
        if num_without > MOST_BOX_ONLY * total:
            raise UserError(
                f"{num_without:,} of the {total:,} objects of {of_split.path} have a box but no mask ('segmentation'): train on "
                "the boxes alone with --data.masks=false, or add the masks."
            )


def _can_train_masks(checked: Mapping[str, CheckedFile], categories: Categories) -> tuple[bool, str]:
    """Whether masks are trained if the user does not say; and if not, why."""
    for split, of_split in checked.items():
        num_objects, num_masked = of_split.masked_by_class(len(categories.ids))
        total, masked = int(num_objects.sum()), int(num_masked.sum())
        lost = np.flatnonzero((num_objects > 0) & (num_masked == 0)) if split == "train" else np.array([], dtype=int)
        if masked >= LEAST_MASKED * total and not len(lost):
            continue
        names = ", ".join(categories.names[label] for label in lost[:5].tolist())
        would_lose = f", and no object of {names} has one" if len(lost) else ""
        return False, (
            f"Only boxes are trained, without masks: {masked:,} of the {total:,} objects of {split} have a mask that can be used"
            f"{would_lose}. To train masks too, add those that are missing."
        )
    return True, ""


def _about_crowds(split: str, annotations: Annotations) -> str:
    """How many objects of a split are crowds, and which images have no others; empty if that does not matter."""
    num_crowds = int(annotations.num_crowds.sum())
    total = num_crowds + int(annotations.num_objects.sum())
    if not num_crowds or (split != "train" and num_crowds <= MOST_CROWDS * total):
        return ""
    num_lost = int(((annotations.num_objects == 0) & (annotations.num_crowds > 0)).sum())
    what = (
        f"are not trained on; {num_lost:,} of the {len(annotations):,} training images have no other object and are left out"
        if split == "train"
        else "count neither as found nor as missed"
    )
    return (
        f"{annotations.path}: {num_crowds:,} of the {total:,} objects are crowds (iscrowd: 1), which {what}. If each of them is "
        "a single object, as in CVAT's brush masks, set iscrowd to 0."
    )


def known_images(root: Path, given: Given, tree: Tree) -> KnownImages:
    """What annotation files say about images that are only predicted on; nothing if they cannot be used.

    Args:
        root: The folder.
        given: Annotation files that the user names.
        tree: The files of the folder.
    """
    try:
        paths = find_annotations(root, given, tree)
        read = {split: read_ids(path) for split, path in paths.items()}
        located = locate_images({split: NamedFile(paths[split], list(ids)) for split, (ids, _) in read.items()}, tree)
    except UserError as error:
        log.warning("The annotation files cannot be used, so the images get new ids: %s", error)
        return KnownImages()
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for split in [split for split in _ORDER_OF_IDS if split in read]:
        for file, number in zip(located[split], read[split][0].values(), strict=True):
            if file is not None and file not in ids and number not in taken:
                ids[file] = number
                taken.add(number)
    categories: dict[str, int] = {}
    for _, of_file in read.values():
        if any(categories.setdefault(name, number) != number for name, number in of_file.items()):
            categories = {}
            break
    return KnownImages(
        ids, max((number for of_split, _ in read.values() for number in of_split.values()), default=0), categories
    )
