"""Any image file that people have, as RGB pixels."""

import os
import re
import threading
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from lit_splitmask.errors import UserError

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga"}
)

_TEXT_TOO_LARGE = ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY", "Decompressed Data Too Large")  # of Pillow's versions

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")
"""Pillow's names of the formats that are opened: no others, since some (EPS, say) start other programs."""

_WIDTH_TAG, _HEIGHT_TAG, _ORIENTATION_TAG = 0x0100, 0x0101, 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(UserError):
    """A file that is missing, truncated or no image.

    Args:
        message: The file, what is wrong, what to do.
        why: What is wrong, without the path; None for the message.
    """

    def __init__(self, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.why = why or message


_plugins = threading.Lock()


def open_image(path: str | Path) -> Image.Image:
    """Opens an image file of one of :data:`FORMATS`; the pixels are not read yet."""
    image = Image.open(path, formats=_known_formats())
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_ORIENTATION_TAG) in _SIDEWAYS:
        image.filename = (
            ""  # else Pillow 13 maps uncompressed pixels into memory at the upright size, which garbles them
        )
    return image


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow has; its plugins are loaded by one thread alone."""
    with _plugins:
        Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def decode(path: str | Path, draft_size: int | None = None) -> np.ndarray:
    """Reads an image file as RGB; of an animated one the first frame.

    The EXIF orientation is applied, transparency is composited over white, and an image of 16 bits or more (or of floats) is
    scaled by its own range.

    Args:
        path: The file; its content counts, not its extension.
        draft_size: Allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as long as both sides stay at
            least this long.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DecodeError: The file is missing, truncated or no image.
    """
    try:
        with open_image(path) as image:
            size, turn = image.size, orientation(image)
            if draft_size is not None:
                image.draft(None, (draft_size, draft_size))
            if image.format == "JPEG" and image.mode == "RGB" and image.size == size and turn == 1:
                pixels = _decode_jpeg(Path(path))
                if pixels is not None:
                    return pixels
            image.load()
            rgb = _to_rgb(image)
            return np.array(rgb.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else rgb)
    except FileNotFoundError:
        raise _missing(path) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        why = reason(error, path)
        raise DecodeError(
            f"The image {path} cannot be decoded: {why}. Replace it by a readable copy, or take it out of the folder.",
            why,
        ) from error


def _missing(path: str | Path) -> DecodeError:
    if os.path.islink(path):
        target = os.readlink(path)
        return DecodeError(
            f"The image {path} is a link to {target}, which does not exist.",
            f"a link to {target}, which does not exist",
        )
    return DecodeError(
        f"The image {path} does not exist (any more). Put it back, or delete the splits.json of its folder to make a new split "
        "without it.",
        "the file does not exist",
    )


def reason(error: BaseException, path: str | Path) -> str:
    """Why an image cannot be read, in words where the library's own would not help."""
    if isinstance(error, Image.DecompressionBombError):
        size = re.search(r"(\d+) pixels", str(error))
        megapixels = f"it has {int(size[1]) / 1e6:,.0f} megapixels" if size else "it is too large"
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"{megapixels}, and Pillow opens {most:,.0f} megapixels at most: make it smaller, or cut it into tiles"
    if isinstance(error, ValueError) and any(sign in str(error) for sign in _TEXT_TOO_LARGE):
        return "a text chunk in it, such as a workflow that a program has saved, is larger than Pillow reads: save it without"
    if isinstance(error, UnidentifiedImageError):
        return _content(path)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _content(path: str | Path) -> str:
    """What a file is that is no image, by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        return str(error.strerror)
    if not head:
        return "the file is empty"
    if is_heic(head):
        return "its content is HEIC, which is not read: convert it to JPEG"
    start = head.lstrip().lower()
    found = next((what for magic, what in _CONTENTS if start.startswith(magic)), None)
    return f"its content is {found}" if found else "its content is no image of a known format"


_CONTENTS = (
    (b"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull`"),
    (b"<!doctype html", "a web page, as after a failed download"),
    (b"<html", "a web page, as after a failed download"),
    (b"<?xml", "XML"),
    (b"<svg", "SVG"),
    (b"%pdf", "PDF"),
    (b"%!ps", "PostScript, which is not read"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x00\x05\x16\x07", "macOS's data about another file"),
)


def is_heic(head: bytes) -> bool:
    """Whether the first bytes of a file are those of HEIC."""
    brands = head[8:64]
    return head[4:8] == b"ftyp" and b"avi" not in brands and any(brand in brands for brand in (b"hei", b"hev", b"mif1"))


def _decode_jpeg(path: Path) -> np.ndarray | None:
    """The same pixels as Pillow's, faster; None where Pillow should try."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    try:
        return decode_jpeg(data, mode=ImageReadMode.RGB).permute(1, 2, 0).contiguous().numpy()
    except RuntimeError:
        return None


def read_shape(path: str | Path) -> tuple[int, int]:
    """The height and width of an image, upright; only its header is read.

    Raises:
        DecodeError: The file is missing or no image.
    """
    try:
        with open_image(path) as image:
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _scale_range(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_range(image: Image.Image) -> Image.Image:
    """Maps the smallest value to 0 and the largest to 255; NaN and infinities count as 0, a constant image as grey."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) * 255 if high > low else np.full_like(values, 128)
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


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
