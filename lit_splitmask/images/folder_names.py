"""What the names of folders mean: splits, label maps, images, dates. Pure functions."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

Role = Literal["train", "val", "test", "unlabelled", "predict"]

SPLITS: tuple[Role, ...] = ("train", "val", "test")

_WORDS: dict[str, Role] = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
    **dict.fromkeys(("unlabelled", "unlabeled", "unlabel"), "unlabelled"),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions", "inference"), "predict"),
}  # fmt: skip
_DRESS = {
    "dataset", "data", "set", "sets", "images", "image", "imgs", "img", "photos", "photo", "pictures", "pics", "pic",
    "files", "folder", "dir", "split", "seg", "class", "cls", "classes", "jpg", "jpeg", "png", "orig", "original",
    "full", "small", "resized", "cropped", "crops", "augmented", "aug", "final", "clean", "processed", "sample",
    "samples", "subset", "partition", "v",
}  # fmt: skip
"""Words that say nothing about what a split is."""

_MASKS = {
    "mask", "masks", "label", "labels", "labelmap", "labelmaps", "annotation", "annotations", "annot", "anno", "gt",
    "groundtruth", "segmentation", "segmentations", "segmentationclass", "seglabel", "seglabels", "labelids", "ann", "anns",
    "anndir", "segmentationclasspng", "segmentationmask", "segmentationmasks", "masksmachine", "gtfine", "semantic", "target",
    "targets",
}  # fmt: skip
_IMAGES = {
    "image", "images", "img", "imgs", "jpegimages", "photos", "pictures", "rgb", "input", "inputs", "frames", "imgdir",
    "leftimgbit",
}  # fmt: skip

_NUMBERED = {
    "images", "image", "imgs", "img", "photos", "photo", "pictures", "pics", "data", "dataset", "set", "part", "batch", "fold",
    "chunk", "shard", "folder", "dir", "files", "archive", "subset", "partition",
}  # fmt: skip

_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PARTS = re.compile(r"[^\W\d_]+|\d+")
_MONTH, _DAY = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
_DATE = re.compile(rf"(?:19|20)[0-9][0-9](?:[-_. ]{_MONTH}(?:[-_. ]{_DAY})?|{_MONTH}{_DAY})(?:[-_. T].*)?")
_CAMERA = re.compile(r"[1-9][0-9]{2}(?=.*[A-Z_])[A-Z0-9_]{5}")


def split_of(name: str) -> Role | None:
    """The split that a folder or a column's value names, in any case and dress; None for other names.

    ``Training``, ``train_set``, ``seg_train``, ``train2017``, ``images-test``, ``valid`` and ``dev`` are splits; ``trains`` and
    ``testosterone`` are not.
    """
    roles, rest = _roles_in(name)
    if any(not part.isdigit() for part in rest):
        return None
    if "unlabelled" in roles:
        return "unlabelled"
    if roles == ("train", "val"):  # such as train_val
        return "train"
    return roles[0] if len(roles) == 1 else None


def split_in(name: str) -> tuple[Role, tuple[str, ...]] | None:
    """The one split that is a part of a name, and the other parts: train and (cars,) for ``cars_train``."""
    roles, rest = _roles_in(name)
    return (roles[0], rest) if len(roles) == 1 else None


@lru_cache(maxsize=10_000)
def _roles_in(name: str) -> tuple[tuple[Role, ...], tuple[str, ...]]:
    """The splits that the parts of a name name, and the other parts without those that say nothing."""
    parts = _PARTS.findall(_CAPITAL.sub("_", same_name(name).strip()).lower())
    roles = tuple(role for part in parts if (role := _role(part)) is not None)
    return roles, tuple(part for part in parts if _role(part) is None and part not in _DRESS)


def _role(part: str) -> Role | None:
    """The split that a word names, alone or written together with one that says nothing, such as ``trainset``."""
    if part in _WORDS:
        return _WORDS[part]
    for word, role in _WORDS.items():
        if part.startswith(word) and part[len(word) :] in _DRESS:
            return role
        if part.endswith(word) and part[: -len(word)] in _DRESS:
            return role
    return None


def means_masks(name: str) -> bool:
    """Whether a folder's name says that it holds label maps."""
    return re.sub(r"[^a-z]", "", _plain(name)) in _MASKS


def split_of_masks(name: str) -> Role | None:
    """The split whose label maps a folder's name says that it holds, such as ``train_labels``, ``valannot`` or ``masks_test``."""
    plain = _plain(name)
    for word in sorted(_MASKS, key=len, reverse=True):
        for rest in (plain.removesuffix(word), plain.removeprefix(word)):
            if rest not in ("", plain):
                return split_of(rest.strip("-_. "))
    return None


def means_images(name: str) -> bool:
    """Whether a folder's name says that it holds the images that belong to label maps."""
    return re.sub(r"[^a-z]", "", _plain(name)) in _IMAGES


def means_date(name: str) -> bool:
    """Whether a folder's name is a date with a month, such as ``2026-05-01``, or a camera's, such as ``100CANON``."""
    return _DATE.fullmatch(name) is not None or _CAMERA.fullmatch(name) is not None


def numbered_parts(names: Iterable[str]) -> bool:
    """Whether names differ in their numbers alone and say that they are parts, such as ``images_001`` and ``images_002``."""
    parts = [_PARTS.findall(_plain(name)) for name in names]
    words = {tuple(part for part in one if not part.isdigit()) for one in parts}
    has_numbers = all(any(part.isdigit() for part in one) for one in parts)
    return has_numbers and len(words) == 1 and any(word in _NUMBERED for word in words.pop())


def same_name(name: str) -> str:
    """A class name in Unicode's composed form: macOS writes é as two characters, other systems as one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    return same_name(name).strip().lower()
