"""One descriptor per image, from what a module's ``features`` returns."""

import math
from typing import Any

import torch
from torch import Tensor

from lit_splitmask.errors import UserError

SHAPES = "(B, D), (B, N, D), which is averaged over the N tokens, or (B, D, H, W), which is averaged over the places"

SAME_ASPECT = math.log(1.35)
"""Feature maps have the aspect ratio of their images, up to rounding."""


def descriptors(features: Any, images: Tensor) -> Tensor:
    """Descriptors (B, D) float32 from features (B, D), (B, N, D) or (B, D, H, W).

    Args:
        features: What ``features(images)`` returned.
        images: (B, C, H, W).

    Raises:
        UserError: The features are not a tensor of such a shape, or are a map (B, H, W, D).
    """
    if not isinstance(features, Tensor):
        raise UserError(
            f"features(images) returns a {type(features).__name__}, not a tensor: return one tensor of the shape {SHAPES}."
        )
    shape = tuple(features.shape)
    given = f"features(images) returns the shape {shape} for images of the shape {tuple(images.shape)}"
    if len(shape) not in (2, 3, 4) or shape[0] != len(images):
        raise UserError(f"{given}: return {SHAPES}, with B={len(images)} here.")
    if features.is_complex():
        raise UserError(f"{given}, of complex numbers: return real numbers.")
    if len(shape) == 4:
        if _is_channels_last(shape, images):
            raise UserError(
                f"{given}. This looks like (B, H, W, D), with the channels last: return features.mean(dim=(1, 2)), or "
                "features.permute(0, 3, 1, 2)."
            )
        features = features.float().mean(dim=(2, 3))
    elif len(shape) == 3:
        features = features.float().mean(dim=1)
    if features.shape[1] < 2:
        raise UserError(f"{given}, a single number per image, which says nothing about its content: return {SHAPES}.")
    return features.to(torch.float32)


def _is_channels_last(shape: tuple[int, ...], images: Tensor) -> bool:
    """Whether a map's aspect ratio is that of the images only if its channels are last."""
    if images.ndim != 4:
        return False
    aspect = math.log(images.shape[3] / images.shape[2])
    last, first = (
        abs(math.log(width / height) - aspect) for height, width in ((shape[1], shape[2]), (shape[2], shape[3]))
    )
    return last <= SAME_ASPECT and first > 2 * SAME_ASPECT
