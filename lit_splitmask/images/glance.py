"""A quick look at a folder, to choose a recipe before anything else is loaded."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lit_splitmask.images.decode import DecodeError, read_shape
from lit_splitmask.images.tree import list_images

_MAX_HEADERS = 64


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
