"""Crops and augmentations of an image together with its label map, and how images are scaled."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lit_splitmask.augment.base import check_fractions, flip
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED

_MOST_TRIES = 10
_LONGEST = 4
"""A long image is scaled so that its long side is at most so many times what the short side should be (2048 : 512)."""

JointTransform = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""``(image, classes, seed) -> crops``: (H, W, 3) uint8 and (H, W) int16 to those of (image_size, image_size)."""


@dataclass(frozen=True)
class SegmentAugment:
    """Random scale, crop, flip and photometric distortion (the recipe of BEiT, XCiT and MAE for ADE20K; mmsegmentation).

    Args:
        min_scale, max_scale: Bounds of the scale, relative to the size at which images are evaluated.
        cat_max_ratio: A crop of which one class has a larger share is drawn again, up to ten times; 1 takes any.
        hflip: Probability of a horizontal flip.
        photometric: Change brightness, contrast, saturation and hue, each with probability one half.

    Raises:
        UserError: A probability or share is outside [0, 1], or the scales are no range.
    """

    min_scale: float = 0.5
    max_scale: float = 2.0
    cat_max_ratio: float = 0.75
    hflip: float = 0.5
    photometric: bool = True

    def __post_init__(self) -> None:
        check_fractions(cat_max_ratio=self.cat_max_ratio, hflip=self.hflip)
        if not 0 < self.min_scale <= self.max_scale:
            raise UserError(
                f"The crop's min_scale={self.min_scale} must be more than 0 and at most max_scale={self.max_scale}."
            )

    def build(self, image_size: int, *, short_side: int | None, fill: np.ndarray) -> JointTransform:
        """Makes the function of an image, its classes and a seed.

        Args:
            image_size: Side of the crops.
            short_side: Of images at scale 1; None where they have it already.
            fill: (3,) uint8, the colour beyond the image's edges.
        """
        return _Segment(self, image_size, short_side, fill)


class _Segment:
    def __init__(self, augment: SegmentAugment, image_size: int, short_side: int | None, fill: np.ndarray) -> None:
        self.augment, self.image_size, self.short_side, self.fill = augment, image_size, short_side, fill

    def __call__(self, image: np.ndarray, classes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        scale = scale_for(classes.shape, self.short_side) * generator.uniform(
            self.augment.min_scale, self.augment.max_scale
        )
        top, left, high, wide = self._box(generator, classes, scale)
        shape = tuple(min(self.image_size, max(1, round(side * scale))) for side in (high, wide))
        pixels = resize_to(image[top : top + high, left : left + wide], shape)
        labels = resize_classes(classes[top : top + high, left : left + wide], shape)
        if generator.random() < self.augment.hflip:
            pixels, labels = flip(pixels), flip(labels)
        if self.augment.photometric:
            pixels = distort(generator, pixels)
        return self._padded(pixels, labels)

    def _box(self, generator: np.random.Generator, classes: np.ndarray, scale: float) -> tuple[int, int, int, int]:
        """Top, left, height and width, in pixels of the source, of what becomes the crop."""
        height, width = classes.shape
        side = max(1, round(self.image_size / scale))
        high, wide = min(height, side), min(width, side)
        for _ in range(_MOST_TRIES):
            top, left = int(generator.integers(height - high + 1)), int(generator.integers(width - wide + 1))
            if self.augment.cat_max_ratio == 1:
                break
            part = classes[top : top + high, left : left + wide]
            counts = np.bincount(part[part != IGNORED])
            if (counts > 0).sum() > 1 and counts.max() < self.augment.cat_max_ratio * counts.sum():
                break
        return top, left, high, wide

    def _padded(self, pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both at the full size, filled at the right and at the bottom."""
        size = (self.image_size, self.image_size)
        high, wide = labels.shape
        if (high, wide) == size:
            return pixels, labels
        crop = np.empty((*size, 3), dtype=np.uint8)
        crop[:] = self.fill
        crop[:high, :wide] = pixels
        target = np.full(size, IGNORED, dtype=np.int16)
        target[:high, :wide] = labels
        return crop, target


def scale_for(shape: tuple[int, ...], short_side: int | None) -> float:
    """The factor that gives an image of (height, width) its short side, or a long one four times it."""
    if short_side is None:
        return 1.0
    return min(short_side / min(shape), _LONGEST * short_side / max(shape))


def resize_to(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An image at another (height, width), antialiased bicubic: (H, W, 3) uint8 to (height, width, 3) uint8."""
    if image.shape[:2] == shape:
        return np.ascontiguousarray(image)
    channels_last = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(channels_last, list(shape), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy()[0])


def resize_classes(classes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A label map at another (height, width), by the pixel under each new pixel's centre: (H, W) to (height, width)."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(classes.shape, shape, strict=True)
    )
    return classes[rows[:, None], columns]


def distort(generator: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Photometric distortion (SSD, as mmsegmentation has it), each step with probability one half.

    Brightness by up to 32, contrast by 0.5 to 1.5 before or after saturation by 0.5 to 1.5 and hue by up to 36 degrees.

    Args:
        generator: Decides.
        image: (H, W, 3) uint8, not changed.

    Returns:
        (H, W, 3) uint8.
    """
    import cv2

    if generator.random() < 0.5:
        image = _linear(image, 1.0, generator.uniform(-32, 32))
    contrast_first = generator.random() < 0.5
    contrast = generator.uniform(0.5, 1.5) if generator.random() < 0.5 else 1.0
    if contrast_first and contrast != 1:
        image = _linear(image, contrast, 0.0)
    saturation = generator.uniform(0.5, 1.5) if generator.random() < 0.5 else 1.0
    hue = int(generator.integers(-18, 19)) if generator.random() < 0.5 else 0  # OpenCV counts in steps of two degrees
    if saturation != 1 or hue:
        hsv = np.array(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        hsv[:, :, 0] = (hsv[:, :, 0].astype(np.int16) + hue) % 180
        hsv[:, :, 1] = _linear(hsv[:, :, 1], saturation, 0.0)
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    if not contrast_first and contrast != 1:
        image = _linear(image, contrast, 0.0)
    return image


def _linear(values: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """``values * factor + offset`` of uint8, cut off at both ends."""
    table = (np.arange(256) * factor + offset).clip(0, 255).astype(np.uint8)
    return table[values]
