"""Any image file that people have, as RGB pixels."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from lit_splitmask.errors import UserError
from lit_splitmask.files import check_regular
from lit_splitmask.images import dicom
from lit_splitmask.images.contents import describe_content, read_header, read_small
from lit_splitmask.images.in_flight import hold
from lit_splitmask.images.jpeg import decode_jpeg, plain_shape
from lit_splitmask.images.window import CHUNK, Window, is_deep, to_rgb

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga", *dicom.EXTENSIONS}
)

_TEXT_TOO_LARGE = ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY", "Decompressed Data Too Large")  # of Pillow's versions

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", dicom.FORMAT)
"""Pillow's names of the formats that are opened: no others, since some (EPS, say) start other programs."""

_WIDTH_TAG, _HEIGHT_TAG, _ORIENTATION_TAG = 0x0100, 0x0101, 0x0112
_SIDEWAYS = (5, 6, 7, 8)

_STRIP_PIXELS = 2**23
"""Pixels that are converted at a time, so that a huge image is in memory once as stored and once as RGB."""

_HUNGRY = ("JPEG2000", "WEBP", "AVIF", dicom.FORMAT)
_MOST_PIXELS_OF_HUNGRY = 2**26
"""Pixels of formats whose decoders take up to 20 bytes for each: a JPEG 2000 of 6 kB would take 3.4 GB."""

_MOST_SCANS = 200
"""Scans of a JPEG; programs write up to about ten, and a small file with thousands takes minutes to decode."""


class DecodeError(UserError):
    """A file that is missing, truncated or not an image.

    Args:
        message: The file, what is wrong, what to do.
        why: What is wrong, without the path; None for the message.
    """

    def __init__(self, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.why = why or message


_plugins = threading.Lock()


def open_image(path: str | Path, data: bytes | None = None) -> Image.Image:
    """Opens an image file of one of :data:`FORMATS`; the pixels are not read yet. Not a pipe, which may wait forever."""
    if data is None:
        check_regular(path)
    image = Image.open(path if data is None else BytesIO(data), formats=_known_formats())
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_ORIENTATION_TAG) in _SIDEWAYS:
        image.filename = (
            ""  # otherwise Pillow 13 maps uncompressed pixels into memory at the upright size, which garbles them
        )
    return image


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow has; its plugins are loaded by one thread alone."""
    with _plugins:
        Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def decode(
    path: str | Path, draft_size: int | None = None, data: bytes | None = None, window: Window | None = None
) -> np.ndarray:
    """Reads an image file as RGB; of an animated image, the first frame.

    The EXIF orientation is applied, and transparency is composited over white.

    Args:
        path: The file; its content counts, not its extension.
        draft_size: Allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as long as both sides stay at
            least this long.
        data: The content, if it is in memory already; ``path`` then only names the image in errors.
        window: The values of an image of more than 8 bits that become black and white; None for its own smallest and largest.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DecodeError: The file is missing, truncated or no image.
        UserError: Memory ran out on a large image.
    """
    return _decode(path, draft_size, data, partial(to_rgb, window=window))


def read_pixels(path: str | Path) -> np.ndarray:
    """Reads an image as :func:`decode` does, but the values of one of more than 8 bits as they are.

    Returns:
        (H, W, 3) uint8, or (H, W) of another type.

    Raises:
        DecodeError: The file is missing, truncated or no image.
        UserError: Memory ran out on a large image.
    """
    return _decode(path, None, None, lambda values: values)


def _decode(
    path: str | Path, draft_size: int | None, data: bytes | None, convert: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Reads an image file; ``convert`` gets the values of one of more than 8 bits."""
    try:
        data = read_small(path) if data is None else data
        pixels = None if data is None else _decode_plain(data, draft_size)
        if pixels is not None:
            return pixels
        with open_image(path, data) as image:
            size = image.size
            if draft_size is not None:
                image.draft(None, (draft_size, draft_size))
            if image.format in _HUNGRY and image.width * image.height > _MOST_PIXELS_OF_HUNGRY:
                raise ValueError(
                    f"{image.format} is read up to {_MOST_PIXELS_OF_HUNGRY / 1e6:.0f} megapixels, since it takes much memory: "
                    "save it as TIFF or PNG, or cut it into tiles"
                )
            hold(memory_for(image))
            turn = orientation(image)  # loads a PNG
            if image.format in ("JPEG", "MPO"):
                data = _content(image) if data is None else data
                if data.count(b"\xff\xda") > _MOST_SCANS:
                    raise ValueError(f"a JPEG of more than {_MOST_SCANS} scans, which would take very long")
                if image.format == "JPEG" and image.mode == "RGB" and image.size == size and turn == 1:
                    pixels = decode_jpeg(data)
                    if pixels is not None:
                        return pixels
            image.load()
            return convert(_upright_values(image, turn)) if is_deep(image) else _upright_rgb(image, turn)
    except FileNotFoundError:
        raise _missing(path) from None
    except MemoryError:
        raise _no_memory(path, data) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        why = reason(error, path, data)
        raise DecodeError(
            f"The image {path} cannot be decoded: {why}. Replace it with a readable copy, or take it out of the folder.",
            why,
        ) from error


def _decode_plain(data: bytes, draft_size: int | None) -> np.ndarray | None:
    """The pixels of a plain JPEG at its full size, which Pillow need not open; None of any other file."""
    shape = plain_shape(data)
    if shape is None or (draft_size is not None and min(shape) >= 2 * draft_size):
        return None
    hold(_memory_for_rgb(*shape))
    return decode_jpeg(data)


def _content(image: Image.Image) -> bytes:
    """All bytes of an opened file."""
    assert isinstance(image, ImageFile)
    assert image.fp is not None
    image.fp.seek(0)
    return image.fp.read()


def memory_for(image: Image.Image) -> int:
    """Roughly how many bytes it takes at most to decode an opened image to RGB."""
    pixels = image.width * image.height
    strip = min(pixels, _STRIP_PIXELS)
    if image.format in _HUNGRY:
        return 20 * pixels + 20 * strip
    if is_deep(image):
        return 12 * pixels + 34 * min(pixels, CHUNK)
    return 7 * pixels + 20 * strip if image.has_transparency_data else _memory_for_rgb(image.height, image.width)


def _memory_for_rgb(height: int, width: int) -> int:
    pixels = height * width
    return 7 * pixels + 8 * min(pixels, _STRIP_PIXELS)


def _no_memory(path: str | Path, data: bytes | None) -> UserError:
    """The error for an image that does not fit into memory. A large one is not left out: which images are used must not depend on
    what else the machine does. A small one is damaged: it claims more than it has."""
    height, width = read_shape(path, data)
    if height * width <= _STRIP_PIXELS:
        why = "it claims to need more memory than this machine has"
        return DecodeError(
            f"The image {path} cannot be decoded: {why}. Replace it with a readable copy, or take it out.", why
        )
    return UserError(
        f"Memory ran out while the image {path} of {height * width / 1e6:,.0f} megapixels was decoded: make it smaller, cut it "
        "into tiles, or close other programs."
    )


def has_reduced_sizes(path: str | Path) -> bool:
    """Whether an image can be decoded at a reduced size: only JPEGs can."""
    with open_image(path) as image:
        return image.format in ("JPEG", "MPO")


def _missing(path: str | Path) -> DecodeError:
    if os.path.islink(path):
        target = os.readlink(path)
        return DecodeError(
            f"The image {path} is a link to {target}, which does not exist.",
            f"a link to {target}, which does not exist",
        )
    return DecodeError(
        f"The image {path} does not exist (any more). Put it back, or delete the splits.npz of its folder to make a new split "
        "without it.",
        "the file does not exist",
    )


def reason(error: BaseException, path: str | Path, data: bytes | None = None) -> str:
    """Why an image cannot be read, reworded where the library's own message would not help."""
    if isinstance(error, Image.DecompressionBombError):
        size = re.search(r"(\d+) pixels", str(error))
        megapixels = f"it has {int(size[1]) / 1e6:,.0f} megapixels" if size else "it is too large"
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"{megapixels}, and Pillow opens at most {most:,.0f} megapixels: make it smaller, or cut it into tiles"
    if isinstance(error, ValueError) and any(sign in str(error) for sign in _TEXT_TOO_LARGE):
        return "a text chunk in it, such as a saved workflow, is larger than Pillow reads: save the image without it"
    if isinstance(error, dicom.DicomError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return describe_content(path, data)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def read_shape(path: str | Path, data: bytes | None = None) -> tuple[int, int]:
    """The height and width of an image, upright; only its header is read.

    Raises:
        DecodeError: The file is missing or not an image.
    """
    try:
        shape = plain_shape(read_header(path) if data is None else data)
        if shape is not None:
            return shape
        with open_image(path, data) as image:
            return _upright_shape(image)
    except FileNotFoundError:
        raise _missing(path) from None
    except Exception as error:  # as in decode
        why = reason(error, path)
        raise DecodeError(f"The image {path} cannot be opened: {why}.", why) from error


def _upright_shape(image: Image.Image) -> tuple[int, int]:
    """The height and width of an opened image, turned as its orientation says."""
    if isinstance(image, TiffImageFile):  # Pillow before 11.2 reports the stored size, later ones the upright one
        width, height = image.tag_v2[_WIDTH_TAG], image.tag_v2[_HEIGHT_TAG]
        is_turned = image.tag_v2.get(_ORIENTATION_TAG) in _SIDEWAYS
    else:
        width, height = image.size
        is_turned = orientation(image) in _SIDEWAYS
    return (width, height) if is_turned else (height, width)


def _upright_rgb(image: Image.Image, turn: int) -> np.ndarray:
    """A loaded image as RGB, turned as its orientation says: (H, W, 3) uint8."""
    width, height = image.size
    rgb = np.empty((width, height, 3) if turn in _SIDEWAYS else (height, width, 3), dtype=np.uint8)
    view = _turned_back(rgb, turn)
    for rows, strip in _strips(image):
        view[rows] = np.asarray(_to_rgb(strip))
    return rgb


def _upright_values(image: Image.Image, turn: int) -> np.ndarray:
    """The values of a loaded image of more than 8 bits, turned as its orientation says: (H, W) integers or floats."""
    values = np.asarray(image)
    if turn == 1:
        return values
    upright = np.empty(values.shape[::-1] if turn in _SIDEWAYS else values.shape, dtype=values.dtype)
    _turned_back(upright, turn)[...] = values
    return upright


def _turned_back(upright: np.ndarray, turn: int) -> np.ndarray:
    """A view of upright pixels in the order in which a file of an orientation stores them.

    Each strip goes to its place in the result at once: Pillow's ``ImageOps.exif_transpose`` would copy the whole image.
    """
    mirrored = upright[:: -1 if turn in (3, 4, 7, 8) else 1, :: -1 if turn in (2, 3, 6, 7) else 1]
    return mirrored.swapaxes(0, 1) if turn in _SIDEWAYS else mirrored


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """A loaded image in parts of whole rows."""
    width, height = image.size
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        yield slice(top, bottom), image if bottom - top == height else image.crop((0, top, width, bottom))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation that is left to apply, 1 to 8; 1 (upright) if it is missing or damaged.

    Pillow turns TIFF images when it loads them, and reports their upright size.
    """
    if image.format == "TIFF":
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged EXIF block is no reason to lose the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
