"""Shared parts of the augmentations: the base class, the crop box, resizing and flipping."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import exp, log, sqrt
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from lit_splitmask.errors import UserError

# What F.interpolate(mode="bicubic", antialias=True) calls: its checks take as long as a crop of a small image.
_resize_antialiased = torch.ops.aten._upsample_bicubic2d_aa.out

Transform = Callable[[np.ndarray, int], np.ndarray]
"""``(image, seed) -> crop``: (H, W, 3) uint8 to (image_size, image_size, 3) uint8."""


class CropTransform(ABC):
    """A :data:`Transform` that can also make its crop in given memory, such as a row of a batch: one copy less per image.

    Args:
        image_size: Side of the crop, in pixels.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Makes the crop in new memory: (H, W, 3) uint8 to (image_size, image_size, 3) uint8."""
        crop = np.empty((self.image_size, self.image_size, 3), dtype=np.uint8)
        self.write(image, seed, crop)
        return crop

    @abstractmethod
    def write(self, image: np.ndarray, seed: int, crop: np.ndarray) -> None:
        """Makes the crop in ``crop``, (image_size, image_size, 3) uint8, contiguous."""


class Augment(ABC):
    """The settings of an augmentation; :meth:`build` makes the function for an input size.

    Attributes:
        repeats: Number of differently augmented copies of an image in a row.
    """

    repeats: int = 1

    @abstractmethod
    def build(self, image_size: int) -> Callable[..., Any]:
        """Makes the function of an image and a seed: a :data:`Transform`, unless targets are augmented as well."""

    def build_all(self, image_size: int) -> list[Transform]:
        """Makes one function per crop of an image; by default one."""
        return [self.build(image_size)]

    def sizes(self, image_size: int) -> list[int]:
        """Sides of the crops, in pixels."""
        return [image_size]


def check_fractions(**settings: float) -> None:
    """Checks that settings are probabilities or shares.

    Raises:
        UserError: One is outside [0, 1].
    """
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise UserError(f"The augmentation setting {name}={value} must be between 0 and 1.")


def crop_box(
    generator: np.random.Generator, height: int, width: int, *, min_scale: float, max_scale: float = 1.0
) -> tuple[int, int, int, int]:
    """Draws a box with ``min_scale`` to ``max_scale`` of the area and an aspect ratio of 3:4 to 4:3.

    If ten draws do not fit into the image (a very long one, say), the box is the largest centred one within these bounds.

    Args:
        generator: Source of randomness.
        height, width: Size of the image, in pixels.
        min_scale, max_scale: Bounds of the box's share of the area.

    Returns:
        Left, top, right and bottom, in pixels.
    """
    for _ in range(10):
        area = height * width * generator.uniform(min_scale, max_scale)
        ratio = exp(generator.uniform(log(3 / 4), log(4 / 3)))
        w, h = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
            return left, top, left + w, top + h
    max_w, max_h = min(width, height * 4 / 3), min(height, width * 4 / 3)
    shrink = min(1.0, sqrt(max_scale * height * width / (max_w * max_h)))
    w, h = max(1, int(max_w * shrink)), max(1, int(max_h * shrink))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resize_box(
    image: np.ndarray,
    size: int,
    box: tuple[int, int, int, int],
    *,
    flipped: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Resizes part of an image to a square, antialiased bicubic; within 3 of 255 of Pillow's result, in a sixth of its time.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the square.
        box: Left, top, right and bottom, in whole pixels.
        flipped: Whether the square is flipped horizontally.
        out: Memory for the square, contiguous; None for new memory.

    Returns:
        (size, size, 3) uint8.
    """
    left, top, right, bottom = box
    part = np.array(image[top:bottom, left:right])  # copied: a memory-mapped file is read-only
    square = np.empty((size, size, 3), dtype=np.uint8) if out is None else out
    resized = np.empty_like(square) if flipped else square
    _resize_antialiased(_channels_first(part), (size, size), False, None, None, out=_channels_first(resized))
    if flipped:
        cv2.flip(resized, 1, square)
    return square


def _channels_first(image: np.ndarray) -> torch.Tensor:
    """The same memory as (1, 3, H, W) in channels-last format, in which torch resizes twice as fast."""
    return torch.from_numpy(image)[None].permute(0, 3, 1, 2)


def flip(image: np.ndarray) -> np.ndarray:
    """Flips an image horizontally, into contiguous memory; in a twentieth of the time of NumPy's reversed copy."""
    return torch.from_numpy(image).flip(1).numpy()


def resize(image: np.ndarray, size: int, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """Resizes an image, or part of it, to a square with Pillow, antialiased bicubic.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the square.
        box: Left, top, right and bottom of the part, in pixels; None for the whole image.

    Returns:
        (size, size, 3) uint8.
    """
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box))
