"""Images and their label maps on disk: which belong together, what they hold, and whether that can be used."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.images.decode import IMAGE_EXTENSIONS, DecodeError, read_shape
from lit_splitmask.images.layout import SPLIT_NAMES, list_images
from lit_splitmask.images.scan import in_threads
from lit_splitmask.losses import IGNORED

log = logging.getLogger(__name__)

VERSION = 1
IMAGES, MAPS = "images", "annotations"
_SPLITS = SPLIT_NAMES | {"training": "train", "testing": "test"}
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_YEAR = "2017"
ADE20K, ADE20K_NAMES = "ADEChallengeData2016", "objectInfo150.txt"
MOST_VALUES = 2**15


@dataclass(frozen=True)
class Pairs:
    """Which files belong together; paths are relative to the root.

    Attributes:
        splits: Images by split, sorted; those of a folder without maps are under ``unlabelled``.
        maps: Label map by image.
        is_ade20k: Whether it is ADE20K's scene parsing benchmark, as its folder's name or its table of classes says.
    """

    splits: dict[str, list[str]]
    maps: dict[str, str]
    is_ade20k: bool


@dataclass(frozen=True)
class FileFacts:
    """What is known about an image or a map.

    Attributes:
        size, mtime_ns: By which a change is noticed.
        shape: Height and width.
        hash: Of an image's file; empty for a map.
        values: That a map has, sorted; empty for an image.
    """

    size: int
    mtime_ns: int
    shape: tuple[int, int]
    hash: str = ""
    values: tuple[int, ...] = ()


def looks_like_segmentation(root: Path) -> bool:
    """Whether a folder has images and, beside them, label maps, which should be PNG but may wrongly be something else."""
    base = _base(root)
    maps = (path for path in (base / MAPS).rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
    return (base / IMAGES).is_dir() and next(maps, None) is not None


def find_pairs(root: Path) -> Pairs:
    """Lists images and finds their maps: ``images/train/a.jpg`` and ``annotations/train/a.png``.

    A folder without ``images`` holds images to predict, and nothing else.

    Raises:
        UserError: There are no images, or some of a labelled split lack their map.
    """
    base = _base(root)
    inside = "" if base == root else f"{base.name}/"
    if not (base / IMAGES).is_dir():
        if (base / MAPS).is_dir():
            raise UserError(
                f"{base} has {MAPS}/, but no {IMAGES}/ beside it: put the images there, or pass the folder above."
            )
        return Pairs({"unlabelled": list_images(root)}, {}, is_ade20k=False)
    splits: dict[str, list[str]] = {}
    maps: dict[str, str] = {}
    for folder, name in _folders(base / IMAGES):
        files = [f"{inside}{IMAGES}/{folder}{file}" for file in list_images(base / IMAGES / folder)]
        map_folder = base / MAPS / folder
        if not map_folder.is_dir():
            if name != "test" and (base / MAPS).is_dir():
                raise UserError(
                    f"{base / IMAGES / folder} has no label maps: put them into {map_folder}, a folder of the same name, or move "
                    "the images away."
                )
            splits.setdefault("unlabelled", []).extend(files)
            continue
        maps |= _match(files, map_folder, f"{inside}{MAPS}/{folder}", len(f"{inside}{IMAGES}/{folder}"))
        splits.setdefault(name, []).extend(files)
    is_ade20k = base.name == ADE20K or (base / ADE20K_NAMES).is_file()
    return Pairs({name: sorted(files) for name, files in splits.items()}, maps, is_ade20k)


def _base(root: Path) -> Path:
    """The folder itself, or the one in it that ADE20K's archive makes."""
    inner = root / ADE20K
    return inner if inner.is_dir() else root


def _folders(images: Path) -> list[tuple[str, str]]:
    """Sub-folders and the split of each, ``Train`` and ``train2017`` among them; the folder itself without any."""
    folders = sorted(path.name for path in images.iterdir() if path.is_dir())
    named = {name: _SPLITS[split] for name in folders if (split := name.lower().removesuffix(_YEAR)) in _SPLITS}
    twice = sorted(name for name, split in named.items() if list(named.values()).count(split) > 1)
    if twice:
        raise UserError(f"{images} holds several folders for one split: {', '.join(twice)}. Keep one of them.")
    if named and len(named) < len(folders):
        log.warning("%s: only %s are used, not its other folders.", images, ", ".join(sorted(named)))
    return [(f"{name}/", split) for name, split in named.items()] or [("", "train")]


def _match(files: Sequence[str], map_folder: Path, prefix: str, cut: int) -> dict[str, str]:
    """The map of each image."""
    present = {
        str(Path(file).with_suffix("")): file for file in sorted(os.path.relpath(p, map_folder) for p in map_folder.rglob("*"))
        if file.lower().endswith(".png")
    }  # fmt: skip
    found = {file: present.get(str(Path(file[cut:]).with_suffix(""))) for file in files}
    missing = [file for file, there in found.items() if there is None]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(files):,} images of {prefix.removesuffix('/')} have no label map there, such as "
            f"{', '.join(missing[:3])}: a map is a PNG of the same name and of one channel (JPEG would change its values). Add "
            "the maps, or take the images out."
        )
    if len(present) > len(set(found.values())):
        log.warning(
            "%d label maps of %s belong to no image, and are left out.",
            len(present) - len(set(found.values())),
            map_folder,
        )
    return {file: prefix + there for file, there in found.items() if there is not None}


def read_map(path: str | Path) -> np.ndarray:
    """The values of a label map: grey, palette (its indices), one bit or 16 bits; (H, W) int32.

    Raises:
        DecodeError: The file is gone, damaged, or a colour picture.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            values = np.asarray(image) // _stretch(path) if mode in _MODES else None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise DecodeError(
            f"The label map {path} cannot be decoded ({type(error).__name__}: {error}). Replace it by an intact copy, or take "
            "it and its image out of the folder."
        ) from error
    if values is None:
        raise DecodeError(
            f"The label map {path} is a colour picture (mode {mode}), but a map has one value a pixel, the number of its class: "
            "save it as a greyscale or palette PNG."
        )
    if values.max(initial=0) >= MOST_VALUES:
        raise DecodeError(f"The label map {path} has the value {values.max()}; values must be below {MOST_VALUES:,}.")
    return values.astype(np.int32)


def _stretch(path: str | Path) -> int:
    """By what Pillow multiplies the values of a PNG: those of grey ones with 2 or 4 bits become shades from 0 to 255."""
    with Path(path).open("rb") as file:
        header = file.read(26)
    bits, colour = header[24:25], header[25:26]
    is_grey_png = header.startswith(b"\x89PNG") and colour == b"\0"
    return {b"\2": 85, b"\4": 17}.get(bits, 1) if is_grey_png else 1


def to_classes(values: np.ndarray, void: int) -> np.ndarray:
    """From a map's values to class indices, (H, W) int16: ``void`` becomes -1, and values above it move down by one."""
    classes = (values - (values > void)).astype(np.int16)
    classes[values == void] = IGNORED
    return classes


def to_values(classes: np.ndarray, void: int | None) -> np.ndarray:
    """The inverse of :func:`to_classes` for what a network predicts, which has no void."""
    return classes if void is None else classes + (classes >= void)


def scan_pairs(root: Path, pairs: Pairs, path: Path) -> dict[str, FileFacts]:
    """Reads the header of every image and the values of every map, once: the record at ``path`` keeps them.

    Raises:
        UserError: A file is damaged, or a map differs in size from its image.
    """
    known = load_record(path) if path.exists() else {}
    files = sorted({file for split in pairs.splits.values() for file in split} | set(pairs.maps.values()))
    maps = set(pairs.maps.values())
    found = in_threads(lambda file: _facts(root / file, file in maps, known.get(file)), files, f"Reading {root.name}")
    record = dict(zip(files, found, strict=True))
    for image, label_map in pairs.maps.items():
        if record[image].shape != record[label_map].shape:
            shapes = ["{1} x {0}".format(*record[file].shape) for file in (label_map, image)]
            raise UserError(
                f"The label map {root / label_map} is {shapes[0]} px, but its image is {shapes[1]} px: a map has a value for "
                "each pixel of its image. Make it anew, without interpolation."
            )
    if record != known:
        stored = {"version": VERSION, "files": {file: asdict(facts) for file, facts in record.items()}}
        write_atomically(path, json.dumps(stored).encode())
    return record


def load_record(path: Path) -> dict[str, FileFacts]:
    """What :func:`scan_pairs` has kept; nothing of another version.

    Raises:
        UserError: The record is damaged.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != VERSION:
            return {}
        return {file: _from_json(entry) for file, entry in stored["files"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"The record {path} is damaged ({type(error).__name__}: {error}). Delete it.") from error


def _from_json(entry: Mapping[str, Any]) -> FileFacts:
    height, width = entry["shape"]
    return FileFacts(entry["size"], entry["mtime_ns"], (height, width), entry["hash"], tuple(entry["values"]))


def _facts(path: Path, is_map: bool, known: FileFacts | None) -> FileFacts:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DecodeError(f"The file {path} cannot be read ({error}).") from error
    if known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return known
    if is_map:
        values = read_map(path)
        shape = (values.shape[0], values.shape[1])
        return FileFacts(
            status.st_size,
            status.st_mtime_ns,
            shape,
            values=tuple(np.flatnonzero(np.bincount(values.ravel())).tolist()),
        )
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return FileFacts(status.st_size, status.st_mtime_ns, read_shape(path), hash=digest)
