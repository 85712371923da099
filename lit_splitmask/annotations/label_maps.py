"""Label maps: their pixels, and how these become classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lit_splitmask.annotations.colours import FORMS, ColourTable
from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import DecodeError, open_image, orientation, reason
from lit_splitmask.images.in_flight import hold
from lit_splitmask.images.scan import hash_pixels
from lit_splitmask.losses import IGNORED

MOST_VALUES = 2**15
BINARY = (0, 255)
"""The values of the most common masks of two classes."""

Kind = Literal["grey", "palette", "colour"]

_SINGLE = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "F")
_MEMORY = 18
"""Bytes for each pixel while a map is read: as stored, as an array, compared and as whole numbers."""

_FEW = 8  # colours that a message lists


class WrongMapError(UserError):
    """An intact file that cannot be a label map: it is no accident, and others are like it."""


@dataclass(frozen=True)
class MapPixels:
    """The pixels of a label map as stored.

    Attributes:
        kind: What they are.
        pixels: Grey values or palette indices (H, W) int32, or colours (H, W, 3) uint8.
        palette: Colours of the indices, (256, 3) uint8; None unless there is a palette.
    """

    kind: Kind
    pixels: np.ndarray
    palette: np.ndarray | None = None

    @property
    def colours(self) -> np.ndarray:
        """The colours of the pixels: (H, W, 3) uint8."""
        if self.palette is not None:
            return self.palette[self.pixels]
        if self.kind == "colour":
            return self.pixels
        return np.repeat(self.pixels.clip(max=255).astype(np.uint8)[..., None], 3, axis=-1)

    @property
    def hash(self) -> str:
        """A hash of the pixels and the palette."""
        palette = "" if self.palette is None else hash_pixels(self.palette)
        return self.kind + hash_pixels(self.pixels) + palette


def open_map(path: str | Path) -> MapPixels:
    """Reads a label map: grey (of up to 16 bits, or colours that are all grey), palette, or colours.

    Raises:
        DecodeError: The file is missing or damaged.
        WrongMapError: The file is a JPEG, is turned by EXIF, has transparent pixels, or has values that are fractions or too
            large.
    """
    try:
        with open_image(path) as image:
            hold(_MEMORY * image.width * image.height)
            image.load()
            if image.format in ("JPEG", "MPO"):
                raise WrongMapError(_is_jpeg(path))
            if orientation(image) != 1:
                raise WrongMapError(
                    f"The label map {path} is rotated by its EXIF data: save it upright, as a PNG without EXIF."
                )
            if image.mode in _SINGLE:
                stretch = _stretch(path)
                values = np.asarray(image) // stretch if stretch > 1 else np.asarray(image)
                palette = _palette(image.getpalette("RGB")) if image.mode == "P" else None
                return MapPixels("grey" if palette is None else "palette", _checked(path, values), palette)
            rgba = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except WrongMapError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        why = reason(error, path)
        raise DecodeError(
            f"The label map {path} cannot be decoded ({why}). Replace it with an intact copy, or take it and its image out of "
            "the folder.",
            why,
        ) from error
    if (rgba[..., 3:] < 255).any():
        raise WrongMapError(
            f"The label map {path} has transparent pixels, whose class is unknown: give them the colour of their class, for "
            "example with `magick mogrify -background black -alpha remove -alpha off *.png`."
        )
    rgb = np.ascontiguousarray(rgba[..., :3])
    if (rgb == rgb[..., :1]).all():
        return MapPixels("grey", rgb[..., 0].astype(np.int32))
    return MapPixels("colour", rgb)


def _is_jpeg(path: str | Path) -> str:
    return (
        f"The label map {path} is a JPEG, whose compression changes values: pixels near edges would get other classes. Save the "
        "maps as PNG from their source. For masks of two values, `magick mogrify -format png -threshold 50% *.jpg` does it."
    )


def _checked(path: str | Path, values: np.ndarray) -> np.ndarray:
    """Values as int32, if they are whole numbers in the range of classes."""
    if values.dtype in (np.bool_, np.uint8):
        return values.astype(np.int32)
    bad = (values < 0) | (values >= MOST_VALUES)
    if values.dtype.kind == "f":
        bad |= values != np.floor(values)
    if bad.any():
        wrong = values[bad][0]
        raise WrongMapError(
            f"The label map {path} has the value {wrong:,}, but values must be whole numbers from 0 to {MOST_VALUES - 1:,}. Save "
            "it with 8 bits, with the number of the class as value."
        )
    return values.astype(np.int32)


def _palette(palette: list[int] | None) -> np.ndarray | None:
    """A palette as (256, 3) uint8, black where it has no more entries."""
    if not palette:
        return None
    return np.array((palette + [0] * 768)[:768], dtype=np.uint8).reshape(256, 3)


def _stretch(path: str | Path) -> int:
    """Pillow's factor on the values of a PNG: those of grey ones with 2 or 4 bits become shades from 0 to 255."""
    with Path(path).open("rb") as file:
        header = file.read(26)
    bits, colour = header[24:25], header[25:26]
    is_grey_png = header.startswith(b"\x89PNG") and colour == b"\0"
    return {b"\2": 85, b"\4": 17}.get(bits, 1) if is_grey_png else 1


@dataclass(frozen=True)
class Coding:
    """What the pixels of label maps stand for.

    Attributes:
        void: The value that means no label.
        values: The value of each class; None for 0, 1, 2, … without ``void``.
        table: The colour of each class, by which maps in colour and palettes are read.
        grey_is_colour: Whether grey maps are read by the table too.
    """

    void: int
    values: tuple[int, ...] | None = None
    table: ColourTable | None = None
    grey_is_colour: bool = False

    def read_values(self, path: str | Path) -> np.ndarray:
        """The values of a map, numbers of the table's classes where there is a table: (H, W) int32.

        Raises:
            DecodeError: The file is missing or damaged.
            UserError: It cannot be a map, or is in colours that are not in the table.
        """
        return self.values_of(open_map(path), path)

    def values_of(self, stored: MapPixels, path: str | Path) -> np.ndarray:
        """As :meth:`read_values`, for pixels that are already read."""
        if self.table is not None and (self.grey_is_colour or stored.kind != "grey"):
            return self.table.to_values(stored.colours, path)
        if stored.kind == "colour":
            raise WrongMapError(_no_table(path, stored.pixels))
        return stored.pixels

    def read_classes(self, path: str | Path) -> np.ndarray:
        """The classes of a map, (H, W) int16, -1 without a label.

        Raises:
            DecodeError: The file is missing or damaged.
            UserError: It cannot be a map, or has a value that stands for no class.
        """
        values = self.read_values(path)
        if self.values is None:
            return to_classes(values, self.void)
        classes = coded_classes(values, self.values, self.void)
        unknown = classes < IGNORED
        if unknown.any():
            raise UserError(
                f"The label map {path} has the value {int(values[unknown][0])}, but the values of the classes are "
                f"{', '.join(map(str, self.values))}."
            )
        return classes


def _no_table(path: str | Path, pixels: np.ndarray) -> str:
    """Why a map in colours cannot be read, with the colours that a table must name."""
    different, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    shown = [",".join(map(str, colour)) for colour in different[np.argsort(-counts)][:_FEW].tolist()]
    more = f" and {len(different) - _FEW:,} more" if len(different) > _FEW else ""
    return (
        f"The label map {path} is a colour picture, but a map has one value for each pixel, the number of its class. Say which "
        f"colour is which class with --data.colours FILE, a text file with {FORMS}. The colours here are "
        f"{'; '.join(shown)}{more}."
    )


def read_map(path: str | Path, table: ColourTable | None = None) -> np.ndarray:
    """The values of a label map: grey, palette (its indices), one bit or 16 bits; with a colour table, colours too.

    Args:
        path: The file.
        table: Which colour is which class, for maps in colour and for palettes.

    Returns:
        (H, W) int32.

    Raises:
        DecodeError: The file is missing or damaged.
        UserError: It cannot be a map, or is in colours that no table explains.
    """
    return Coding(MOST_VALUES, table=table).read_values(path)


def to_classes(values: np.ndarray, void: int) -> np.ndarray:
    """From a map's values to class indices, (H, W) int16: ``void`` becomes -1, and values above it move down by one."""
    classes = (values - (values > void)).astype(np.int16)
    classes[values == void] = IGNORED
    return classes


def coded_classes(values: np.ndarray, coded: Sequence[int], void: int) -> np.ndarray:
    """From a map's values to class indices, (H, W) int16, where each class has a value of its own.

    ``void`` becomes -1, and a value that stands for nothing -2.
    """
    table = np.full(max(*coded, void, int(values.max(initial=0))) + 1, IGNORED - 1, dtype=np.int16)
    table[void] = IGNORED
    table[list(coded)] = np.arange(len(coded))
    return table[values]


def to_values(classes: np.ndarray, void: int | None) -> np.ndarray:
    """The inverse of :func:`to_classes` for what a network predicts, which has no void."""
    return classes if void is None else classes + (classes >= void)
