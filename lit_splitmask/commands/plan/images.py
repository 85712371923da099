"""Inspects the images of a folder: how many, how large, which files are odd, which images occur more than once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

from PIL import Image

from lit_splitmask.images import label_sets
from lit_splitmask.images.decode import decode, memory_for, open_image, orientation
from lit_splitmask.images.duplicates import Fingerprint, fingerprint, near_groups
from lit_splitmask.images.in_flight import hold
from lit_splitmask.images.index import FolderIndex
from lit_splitmask.images.scan import examine, in_threads
from lit_splitmask.images.split import group_by_hash

NO_LABEL = "(no label)"
NO_CLASS = "(none of the classes)"
"""For an image that may have several labels and has none."""

EXAMPLES = 5
"""Largest number of files listed for each kind of oddity."""

_DRAFT_SIZE = 64  # twice the side of a fingerprint
_GREY = {"1", "L", "LA", "La"}
_PALETTE = {"P", "PA"}
_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}  # a JPEG with a second picture behind it; a BMP without its first header


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest value."""

    smallest: int
    median: int
    largest: int

    @classmethod
    def of(cls, values: list[int]) -> "Spread":
        """The spread of at least one value."""
        return cls(min(values), int(median(values)), max(values))


@dataclass(frozen=True)
class OddFiles:
    """Files with one kind of oddity: how many, and the first few."""

    count: int
    examples: list[str]


@dataclass(frozen=True)
class Group:
    """Images that are identical or nearly so.

    Attributes:
        files: Paths relative to the folder.
        splits: Split of each file.
        labels: Label of each file.
        across_splits: Whether they are in more than one split.
        labels_differ: Whether they have more than one label.
    """

    files: list[str]
    splits: list[str]
    labels: list[str]
    across_splits: bool
    labels_differ: bool


@dataclass(frozen=True)
class ImageFindings:
    """What was found in a folder.

    Attributes:
        layout: How the folder was read, in one line.
        images: Images that are used, by split.
        counts: Images that are used, by split and class; one with several labels counts for each.
        taken_out: Images left out of a split because another split has the same pixels, and which image that is.
        height: Heights of the readable images, upright.
        width: Their widths.
        formats: Number of images of each file format, by content.
        odd: Odd files by kind.
        undecodable: Files that cannot be decoded, and why.
        identical: Groups with the same pixels; the worst first.
        near: Groups that look the same, identical images represented by one; the worst first.
        one_image_classes: Classes with a single distinct image.
        empty_classes: Class folders without a readable image.
    """

    layout: str
    images: dict[str, int]
    counts: dict[str, dict[str, int]]
    taken_out: list[str]
    height: Spread
    width: Spread
    formats: dict[str, int]
    odd: dict[str, OddFiles]
    undecodable: dict[str, str]
    identical: list[Group]
    near: list[Group]
    one_image_classes: list[str]
    empty_classes: list[str]


@dataclass(frozen=True)
class InspectedFile:
    """What one image file is.

    Attributes:
        format: File format, by content.
        oddities: In which ways it is odd.
        fingerprint: What it looks like.
    """

    format: str
    oddities: list[str]
    fingerprint: Fingerprint


def find(index: FolderIndex) -> ImageFindings:
    """Reads every image of a folder once, at a reduced size, and takes the rest from the folder's index."""
    files = list(index.files)
    inspected = list(in_threads(lambda file: inspect(index.root / file), files, f"Comparing {index.root.name}"))
    odd: dict[str, list[str]] = defaultdict(list)
    for file, entry in zip(files, inspected, strict=True):
        for kind in entry.oddities:
            odd[kind].append(file)
    records = index.files.as_dict()
    identical = group_by_hash(files, {file: entry.hash for file, entry in records.items()})
    entry_of = dict(zip(files, inspected, strict=True))
    firsts = [group[0] for group in identical]
    near = near_groups([entry_of[file].fingerprint for file in firsts])
    heights, widths = index.files.shapes.T.tolist()
    return ImageFindings(
        layout=index.layout,
        images={split: len(files) for split, files in index.splits.items()},
        counts=_counts(index),
        taken_out=[entry.describe() for entry in index.dropped],
        height=Spread.of(heights),
        width=Spread.of(widths),
        formats=dict(Counter(entry.format for entry in inspected).most_common()),
        odd={kind: OddFiles(len(odd[kind]), odd[kind][:EXAMPLES]) for kind in sorted(odd)},
        undecodable={file: _reason(index.root / file) for file in index.unreadable},
        identical=_groups(index, (group for group in identical if len(group) > 1)),
        near=_groups(index, ([firsts[number] for number in group] for group in near)),
        one_image_classes=_one_image_classes(index),
        empty_classes=_empty_classes(index),
    )


def inspect(path: Path) -> InspectedFile:
    """Reads the header of an image, and the image at a reduced size.

    Raises:
        DecodeError: The image can no longer be decoded.
    """
    with open_image(path) as image:
        hold(memory_for(image))
        file_format = _SAME_FORMAT.get(str(image.format), str(image.format))
        oddities = list(odd_kinds(image, path.suffix))
    return InspectedFile(file_format, oddities, fingerprint(decode(path, draft_size=_DRAFT_SIZE)))


def odd_kinds(image: Image.Image, extension: str) -> Iterable[str]:
    """In which ways an opened, not yet loaded image differs from plain 8-bit RGB with the extension of its format."""
    # Pillow reads 16-bit colour as mode RGB. This comes first, since reading the orientation loads a PNG.
    stored = " ".join(str(tile[3]) for tile in getattr(image, "tile", []))
    if 2 <= orientation(image) <= 8:
        yield "EXIF-rotated"
    if image.mode in _GREY:
        yield "greyscale"
    if image.mode in _PALETTE:
        yield "palette"
    if image.mode == "CMYK":
        yield "CMYK"
    if image.has_transparency_data:
        yield "transparent (RGBA)"
    if image.mode in ("I", "F") or image.mode.startswith("I;") or ";16" in stored:
        yield "16-bit"
    if image.format != "MPO" and getattr(image, "is_animated", False):
        yield "animated"
    named = Image.registered_extensions().get(extension.lower(), "")
    if named and _SAME_FORMAT.get(named, named) != _SAME_FORMAT.get(str(image.format), image.format):
        yield "extension of another format"


def _reason(path: Path) -> str:
    """Why a file cannot be decoded."""
    error = examine(path)[1]
    assert error is not None, f"{path} could not be decoded before"
    return error.why


def _labels_of(index: FolderIndex, files: Sequence[str]) -> list[list[str]]:
    """The classes of each image, or what says that it has none."""
    several = index.several_labels
    named = [(label_sets.names_in(name) or [NO_CLASS]) if several else [name] for name in index.classes]
    return [named[label] if label >= 0 else [NO_LABEL] for label in index.labels(files)]


def _counts(index: FolderIndex) -> dict[str, dict[str, int]]:
    found = {split: Counter(chain(*_labels_of(index, files))) for split, files in index.splits.items()}
    classes = label_sets.classes_of(index.classes) if index.several_labels else list(index.classes)
    classes += [name for name in (NO_CLASS, NO_LABEL) if any(name in counter for counter in found.values())]
    return {split: {name: counter[name] for name in classes} for split, counter in found.items()}


def _groups(index: FolderIndex, groups: Iterable[list[str]]) -> list[Group]:
    """Groups with their splits and labels; groups across splits and under different labels come first."""
    split_of = {file: split for split, files in index.splits.items() for file in files}
    split_of |= {entry.file: entry.split for entry in index.dropped}
    result = []
    for files in groups:
        splits, labels = [split_of[file] for file in files], [" + ".join(names) for names in _labels_of(index, files)]
        result.append(Group(files, splits, labels, len(set(splits)) > 1, len({*labels} - {NO_LABEL}) > 1))
    return sorted(result, key=lambda group: -group.across_splits - group.labels_differ)


def _one_image_classes(index: FolderIndex) -> list[str]:
    hashes: dict[str, set[bytes]] = defaultdict(set)
    if index.classes:
        for names, pixels in zip(_labels_of(index, index.files.names), index.files.hashes.tolist(), strict=True):
            for name in names:
                hashes[name].add(pixels)
    return sorted(name for name, found in hashes.items() if len(found) == 1 and name not in (NO_LABEL, NO_CLASS))


def _empty_classes(index: FolderIndex) -> list[str]:
    """Class folders without images, relative to the root; none if lists, not folders, name the classes."""
    if not index.classes or index.lists_labels:
        return []
    known = [file.split("/") for file in [*index.files, *index.unreadable]]
    parents = {"/".join(parts[: index.class_level]) for parts in known}
    folders = {
        folder.relative_to(index.root).as_posix()
        for parent in parents
        for folder in (index.root / parent).iterdir()
        if folder.is_dir() and not folder.name.startswith((".", "__MACOSX"))
    }
    return sorted(folders - {"/".join(file.split("/")[: index.class_level + 1]) for file in index.files})
