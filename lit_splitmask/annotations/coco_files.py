"""Where the annotation files of a COCO folder are."""

import json
import mmap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file
from lit_splitmask.images.folder_names import SPLITS, split_in, split_of
from lit_splitmask.images.tree import Tree

ROBOFLOW = "_annotations.coco.json"
_PREFIX = "instances_"
_PARTS = ("images", "annotations", "categories")
_LARGEST = 200 * 2**20
"""Bytes; larger JSON files are known by the names of their parts, without parsing them."""

WAYS = (
    "annotations/instances_train.json and instances_val.json beside train/ and val/ (COCO), train/_annotations.coco.json "
    "(Roboflow), annotations/instances_default.json with images/ (CVAT), or any file given by --data.annotations FILE"
)

Given = str | Mapping[str, str] | None
"""``--data.annotations``: one file, or a file for each split."""


def find_annotations(root: Path, given: Given = None, tree: Tree | None = None) -> dict[str, Path]:
    """The annotation file of each split: COCO's, Roboflow's or CVAT's; with other names, those that hold COCO's annotations.

    A file whose name says no split is for ``train``.

    Args:
        root: The folder.
        given: Files that the user names, relative to the current directory or to the root; no others are used then.
        tree: The files of the folder, if they are known.

    Raises:
        UserError: A given file does not exist, or two files are for one split.
    """
    if given is not None:
        return _given(root, {"train": given} if isinstance(given, str) else given)
    tree = tree or Tree.read(root)
    files = [file for file in tree.label_files if file.lower().endswith(".json") and file.count("/") <= 2]
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        split = _split_by_convention(file)
        if split is not None:
            found[split].append(file)
    if files and not found:
        with_own_image = {_stem(file) for file in tree.images}  # such as labelme's
        for file in files:
            if file.count("/") <= 1 and _stem(file) not in with_own_image and _is_coco(root / file):
                found[_split_in_name(file)].append(file)
    chosen = {split: _choose(split, several) for split, several in found.items()}
    for split in SPLITS:
        if split in found and chosen[split] is None:
            raise UserError(
                _several(root, split, {name: [one] if (one := chosen[name]) else found[name] for name in found})
            )
    return {split: root / str(chosen[split]) for split in SPLITS if split in chosen}


def looks_like_coco(root: Path, tree: Tree | None = None) -> bool:
    """Whether a folder has annotations in COCO's format."""
    return bool(find_annotations(root, tree=tree))


def _given(root: Path, files: Mapping[str, str]) -> dict[str, Path]:
    """The files that the user names, by split."""
    found: dict[str, Path] = {}
    for name, path in files.items():
        split = split_of(name)
        if split not in SPLITS:
            raise UserError(f"--data.annotations names the split {name!r}: use train, val or test.")
        if split in found:
            raise UserError(f"--data.annotations names two files for {split}: {found[split]} and {path}. Keep one.")
        found[split] = _existing(root, path)
    return {split: found[split] for split in SPLITS if split in found}


def _existing(root: Path, path: str) -> Path:
    candidates = (Path(path).expanduser(), root / path)
    found = next((candidate for candidate in candidates if is_file(candidate)), None)
    if found is None:
        raise UserError(
            f"There is no annotation file {path} (from {Path.cwd()}, or in {root}): check --data.annotations."
        )
    return found


def _stem(file: str) -> str:
    return PurePosixPath(file).stem


def _split_by_convention(file: str) -> str | None:
    """The split of a file that is named as COCO, Roboflow or CVAT do; None for other names."""
    path = PurePosixPath(file)
    if path.name == ROBOFLOW:
        role = split_of(path.parent.name) if path.parent.name else None
        return role if role in SPLITS else "train"
    if path.name.startswith(_PREFIX) and path.parent.name == "annotations":
        role = split_of(path.stem.removeprefix(_PREFIX))
        return role if role in SPLITS else "train" if path.stem == f"{_PREFIX}default" else None
    return None


def _split_in_name(file: str) -> str:
    """The split that a file's name or folder says, such as ``coco_val.json`` or ``valid/labels.json``; otherwise ``train``."""
    path = PurePosixPath(file)
    for name in (path.stem, path.parent.name):
        part = split_in(name)
        role = split_of(name) or (part[0] if part else None)
        if role in SPLITS:
            return str(role)
    return "train"


def _choose(split: str, files: Sequence[str]) -> str | None:
    """The file for a split: the only one, or the one with exactly COCO's name; None if that is unclear."""
    if len(files) == 1:
        return files[0]
    for name in (f"annotations/{_PREFIX}{split}.json", f"annotations/{_PREFIX}{split}2017.json"):
        if name in files:
            return name
    return None


def _several(root: Path, split: str, found: Mapping[str, Sequence[str]]) -> str:
    """Why it is unclear which file is for a split, and the command that says which."""
    files = found[split]
    listed = ", ".join(files[:3]) + (", …" if len(files) > 3 else "")
    tops = list(dict.fromkeys(file.split("/")[0] for file in files))
    if len(tops) == len(files) and not any(
        split_of(top) or "/" not in file for top, file in zip(tops, files, strict=True)
    ):
        way = f"pass the folder of one set, such as --data.root {root / tops[0]}"
    else:
        named = ", ".join(f"{other}: {found[other][0]}" for other in SPLITS if other in found)
        way = f"move all but one away, or name the right ones, such as --data.annotations '{{{named}}}'"
    return f"{root} holds {len(files)} annotation files for {split} ({listed}): {way}."


def _is_coco(path: Path) -> bool:
    """Whether a JSON file of any name holds COCO's annotations; a damaged one with all their keys counts too."""
    try:
        if path.stat().st_size == 0:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if any(text.find(f'"{part}"'.encode()) < 0 for part in _PARTS):
                return False
            if len(text) > _LARGEST:
                return True
            stored = json.loads(text[:])
    except OSError:
        return False
    except (ValueError, RecursionError):
        return True  # reading it then says what is wrong
    return isinstance(stored, dict) and all(isinstance(stored.get(part), list) for part in _PARTS)
