"""A quick look at a folder, to choose a recipe before anything else is loaded."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lit_splitmask.images.decode import DecodeError, read_shape
from lit_splitmask.images.layout import Layout, LayoutName, understand
from lit_splitmask.images.tree import Tree, list_images

_MAX_HEADERS = 64
_HELD_OUT = {
    "val": 0.1,
    "test": 0.2,
}  # shares that are held out without a folder for them; test only from labelled images


@dataclass(frozen=True)
class Glance:
    """What a folder seems to hold.

    Attributes:
        num_images: Image files at any depth.
        median_side: Median of the shorter sides of a few of them, in pixels.

    Example:
        >>> from lit_splitmask.datamodules import Glance, glance
        >>> glance("photos").num_images
        24
        >>> isinstance(glance("photos"), Glance)
        True
    """

    num_images: int
    median_side: int


def glance(root: str | Path) -> Glance:
    """Counts a folder's images, and reads the sizes of at most 64 evenly spaced ones from their headers.

    Raises:
        UserError: There is no such folder, or no image in it.
    """
    path = Path(root).expanduser()
    files = list_images(path)
    sides = []
    for file in files[:: max(1, len(files) // _MAX_HEADERS)]:
        with suppress(DecodeError):  # the scan names files that cannot be read
            sides.append(min(read_shape(path / file)))
    return Glance(len(files), int(median(sides)) if sides else 0)


def num_training(root: str | Path, *, layout: LayoutName = "auto", tree: Tree | None = None) -> int:
    """About how many images are for training, from the names of the files alone.

    Args:
        root: The folder.
        layout: What the folder is.
        tree: The files of the folder, if they are known.

    Raises:
        UserError: There is no such folder, no image in it, or its layout is ambiguous.
    """
    found = understand(Path(root).expanduser(), layout=layout, tree=tree)
    files = found.given.get("train", found.files)
    return max(1, round(_left_for_training(found) * len(files)))


def _left_for_training(found: Layout) -> float:
    """The share of the training images that remains where splits have no folders of their own."""
    return 1 - sum(
        part for split, part in _HELD_OUT.items() if split not in found.given and (found.classes or split == "val")
    )


def labels_per_class(root: str | Path, *, layout: LayoutName = "auto", share: float = 1.0) -> float | None:
    """Counts the training images with a label, per class, from the names of the files alone.

    Where a split has no folder of its own, the usual share of the images is taken for it.

    Args:
        root: The folder.
        layout: What the folder is.
        share: Share of the labels that are used, in (0, 1].

    Returns:
        The mean over the classes; None without labels.

    Raises:
        UserError: There is no such folder, no image in it, or its layout is ambiguous.
    """
    found = understand(Path(root).expanduser(), layout=layout)
    if not found.classes:
        return None
    labels = found.labels()
    left = _left_for_training(found)
    counts = Counter(labels[file] for file in found.given.get("train", found.files))
    return sum(max(1, round(round(left * count) * share)) for count in counts.values()) / len(found.classes)
