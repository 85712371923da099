"""Which image a label map is for, by the names of the two files. Pure functions."""

import os
import re
from collections.abc import Sequence

from lit_splitmask.images.decode import IMAGE_EXTENSIONS
from lit_splitmask.images.folder_names import same_name

_MAP = (
    "gtfine_labelids|gtfine_labeltrainids|ground_?truth|segmentation|annotations?|labelids|masks?|labels?|annot|class|manual\\d?"
    "|gt|seg"
)
_IMAGE = "leftimg8bit|training|images?|imgs?|photo|frame|orig(?:inal)?|rgb|sat|raw|im|0000"
_MAP_SUFFIX = re.compile(rf"[-_. ](?:{_MAP}|l|p)$")
_MAP_PREFIX = re.compile(rf"^(?:{_MAP})(?:[-_. ]|(?=\d))")
_IMAGE_SUFFIX = re.compile(rf"[-_. ](?:{_IMAGE})$")
_IMAGE_PREFIX = re.compile(rf"^(?:{_IMAGE})(?:[-_. ]|(?=\d))")


def stem(file: str) -> str:
    """The name of a file without folders and extension, in Unicode's composed form."""
    return same_name(os.path.splitext(file.rpartition("/")[2])[0])


def _names_of_image(file: str) -> tuple[str, str]:
    """What the stem of a map may be for an image: its name with its extension (``a.jpg.png``), or without."""
    return same_name(file.rpartition("/")[2]), stem(file)


def image_of_map(file: str) -> str:
    """The stem of the image that a map is for: its own, without what says that it is a map (``a_mask``, ``mask_a``, ``a_L``)."""
    name, extension = os.path.splitext(stem(file))
    return _without(name if extension.lower() in IMAGE_EXTENSIONS else stem(file), _MAP_SUFFIX, _MAP_PREFIX)


def has_map_name(file: str) -> bool:
    """Whether the name of a file says that it is a map."""
    return image_of_map(file) != stem(file).casefold()


def match(images: Sequence[str], maps: Sequence[str]) -> dict[str, str]:
    """The map of each image that has one: of the same name, otherwise after removing the words for images and maps.

    Of maps that differ only in their extension, a PNG is taken, since other formats may change values.
    """
    ordered = sorted(maps, key=lambda file: (not file.lower().endswith(".png"), file))
    exact: dict[str, str] = {}
    plain: dict[str, str] = {}
    for file in ordered:
        exact.setdefault(stem(file), file)
    found = {file: exact[name] for file in images for name in reversed(_names_of_image(file)) if name in exact}
    if len(found) == len(images):
        return found
    taken = set(found.values())
    for file in ordered:
        if file not in taken:
            plain.setdefault(image_of_map(file), file)
    for file in images:
        if file not in found:
            names = (stem(file).casefold(), _without(stem(file), _IMAGE_SUFFIX, _IMAGE_PREFIX))
            partner = next((plain[name] for name in names if name in plain), None)
            if partner is not None:
                found[file] = partner
    return found


def _without(name: str, suffix: re.Pattern[str], prefix: re.Pattern[str]) -> str:
    """A name in lower case without a suffix, or without a prefix if it has no suffix; the name itself if nothing is left."""
    name = name.casefold()
    shorter = suffix.sub("", name)
    if shorter == name:
        shorter = prefix.sub("", name)
    return shorter or name
