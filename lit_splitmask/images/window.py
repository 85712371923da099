"""Images of more than 8 bits: which values become black and white. One window for a whole set keeps their absolute values."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lit_splitmask.errors import UserError

Window = tuple[float, float]
"""The values that become black and white; values outside are clipped."""

DEEP = "deep-"
"""Start of the hash of an image of more than 8 bits, which marks it without opening it."""

CHUNK = 2**20
"""Pixels that are converted at a time: as floats, all of a huge image would take eight times its memory."""


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image has values of more than 8 bits, or floats. (Colour of 16 bits is read as its upper 8 bits.)"""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def parse_window(given: str | Sequence[float] | None) -> Window | None:
    """A window that the user gave as text or as two numbers.

    Raises:
        UserError: It is not two finite numbers, the lower first.
    """
    if given is None:
        return None
    parts = given.strip("[]() ").split(",") if isinstance(given, str) else list(given)
    try:
        low, high = map(float, parts)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(
            f"window={given} must be two numbers, the lower first, separated by a comma: the values of 16-bit images that become "
            "black and white, such as --data.window=0,4095."
        )
    return low, high


def show(window: Window) -> str:
    """A window as the option takes it, exactly."""
    return ",".join(repr(float(end)).removesuffix(".0") for end in window)


def to_rgb(values: np.ndarray, window: Window | None) -> np.ndarray:
    """Maps values to grey levels. NaN becomes black, infinities become black and white.

    Args:
        values: (H, W) integers or floats.
        window: The values that become black and white; None for the image's own smallest and largest, which makes images
            incomparable. An image of one value then becomes grey.

    Returns:
        (H, W, 3) uint8.
    """
    low, high = window or _own_range(values)
    rgb = np.full((*values.shape, 3), 128, dtype=np.uint8)
    if not low < high:
        return rgb
    for rows in _rows(values):
        part = np.nan_to_num(values[rows].astype(np.float64), nan=low, posinf=high, neginf=low)
        scaled = (part - low) / (high - low) * 255
        rgb[rows] = scaled.clip(0, 255).round().astype(np.uint8)[..., None]
    return rgb


def has_gaps(values: np.ndarray) -> bool:
    """Whether some values are NaN or infinite."""
    return values.dtype.kind == "f" and not all(np.isfinite(values[rows]).all() for rows in _rows(values))


def _own_range(values: np.ndarray) -> Window:
    """The smallest and the largest value; 0 and 0 without any."""
    parts = [part[np.isfinite(part)] for rows in _rows(values) for part in (values[rows],)]
    ends = [(float(part.min()), float(part.max())) for part in parts if part.size]
    return min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=0.0)


def _rows(values: np.ndarray) -> list[slice]:
    """An image in parts of whole rows."""
    step = max(1, CHUNK // max(1, values.shape[1]))
    return [slice(top, top + step) for top in range(0, len(values), step)]
