"""Whether what a file says about its network agrees with its tensors: built as it says, a network might fill the memory."""

import math
from collections.abc import Mapping
from typing import Any

from lit_splitmask.models.vit import ViTConfig
from lit_splitmask.views import INTERPOLATION

_SHOWN_BY_TENSORS = ("embed_dim", "depth", "patch_size", "in_chans", "class_token")


def disagreement(described: ViTConfig, shown: ViTConfig, num_positions: int) -> str | None:
    """How a described shape differs from that of the tensors; None if it does not.

    Args:
        described: The shape as the file describes it; values of any type.
        shown: The shape that the tensors show.
        num_positions: Positions of patches that the file holds.
    """
    for name in (*_SHOWN_BY_TENSORS, "image_size", "num_heads"):
        value, expected = getattr(described, name), bool if name == "class_token" else int
        if type(value) is not expected:
            return f"{name} is {_short(value)}, which is not a {'boolean' if expected is bool else 'whole number'}"
    for name in _SHOWN_BY_TENSORS:
        if getattr(described, name) != getattr(shown, name):
            return f"{name} is {_short(getattr(described, name))}, but the tensors have {getattr(shown, name)}"
    if described.image_size < 1 or (described.image_size // described.patch_size) ** 2 != num_positions:
        return f"image_size is {described.image_size}, but the tensors have {num_positions:,} positions"
    assert described.embed_dim is not None
    assert described.num_heads is not None
    if described.num_heads < 1 or described.embed_dim % described.num_heads:
        return f"num_heads is {described.num_heads}, which does not divide the width of {described.embed_dim}"
    if described.positions not in ("learned", "sincos"):
        return f"positions is {_short(described.positions)}, but must be learned or sincos"
    return None


def wrong_entry(info: Mapping[str, Any], channels: int) -> str | None:
    """What is wrong with the other entries about a network; None if nothing is.

    Args:
        info: Entries as JSON values.
        channels: Input channels of the network.
    """
    for name in ("pixel_mean", "pixel_std"):
        value = info.get(name, [1.0] * channels)
        if not (isinstance(value, list) and len(value) == channels and all(map(_is_finite, value))):
            return f"{name} is {_short(value)}, but must be {channels} numbers"
        if name == "pixel_std" and min(value) <= 0:
            return f"pixel_std is {_short(value)}, but must be above 0"
    window = info.get("pixel_window", [0, 1])
    if not (isinstance(window, list) and len(window) == 2 and all(map(_is_number, window)) and window[0] < window[1]):
        return f"pixel_window is {_short(window)}, but must be two numbers, the lower first"
    ratio = info.get("crop_ratio", 1.0)
    if not (_is_finite(ratio) and 0 < ratio <= 1):
        return f"crop_ratio is {_short(ratio)}, but must be more than 0 and at most 1"
    interpolation = info.get("interpolation", INTERPOLATION)
    if interpolation != INTERPOLATION:
        return f"interpolation is {_short(interpolation)}, but must be {INTERPOLATION}"
    names = info.get("class_names", [])
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        return f"class_names is {_short(names)}, but must be a list of names"
    units = info.get("regressor", {"mean": 0.0, "std": 1.0})
    if not (
        isinstance(units, dict) and all(_is_number(units.get(name)) for name in ("mean", "std")) and units["std"] > 0
    ):
        return f"regressor is {_short(units)}, but must be a mean and a std above 0"
    return None


def _is_finite(value: Any) -> bool:
    return _is_number(value) and abs(value) < 1e6


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
