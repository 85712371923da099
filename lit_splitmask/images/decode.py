"""Any image file that people have, as RGB pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from lit_splitmask.errors import UserError

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga"}
)

_ORIENTATION_TAG = 0x0112
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
    """A file that is gone, truncated or no image."""


def decode(path: str | Path, draft_size: int | None = None) -> np.ndarray:
    """Reads an image file as RGB; the first frame of an animated one.

    EXIF orientation is honoured, transparency is laid over white, and an image of 16 bits or more (or of floats) is
    scaled by its own range.

    Args:
        path: The file; its content counts, not its extension.
        draft_size: Lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as long as both its sides
            stay at least this long.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DecodeError: The file is gone, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            size, turn = image.size, _UPRIGHT.get(orientation(image))
            if draft_size is not None:
                image.draft(None, (draft_size, draft_size))
            if image.format == "JPEG" and image.mode == "RGB" and image.size == size and turn is None:
                pixels = _decode_jpeg(Path(path))
                if pixels is not None:
                    return pixels
            image.load()
            rgb = _to_rgb(image)
            return np.array(rgb if turn is None else rgb.transpose(turn))
    except FileNotFoundError:
        raise DecodeError(
            f"The image {path} does not exist (any more). Put it back, or delete the splits.json of its folder to make "
            "a new split without it."
        ) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise DecodeError(
            f"The image {path} cannot be decoded ({type(error).__name__}: {error}). Replace it by an intact copy, or "
            "take it out of the folder."
        ) from error


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
    """The height and width of an image, upright; its header alone is read.

    Raises:
        DecodeError: The file is gone or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (width, height) if orientation(image) >= 5 else (height, width)
    except Exception as error:  # as in decode
        raise DecodeError(f"The image {path} cannot be opened ({type(error).__name__}: {error}).") from error


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
    """The EXIF orientation; 1 (upright) where it is missing or damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged EXIF block is no reason to lose the image
        return 1
    return orientation if isinstance(orientation, int) else 1
