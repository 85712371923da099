"""The augmentation of segmentation: an image and its label map are scaled, cropped and flipped together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lit_splitmask.augment.base import check_fractions, flip
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED

_MAX_TRIES = 10
_MAX_ASPECT = 4
"""Largest long side after scaling, as a multiple of the requested short side (2048 : 512)."""

JointTransform = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""``(image, classes, seed) -> crops``: from (H, W, 3) uint8 and (H, W) int16 to the same of side image_size."""


@dataclass(frozen=True)
class SegmentAugment:
    """Random scale, crop, flip and photometric distortion (the ADE20K recipe of BEiT, XCiT and MAE; mmsegmentation's).

    Args:
        min_scale, max_scale: Bounds of the scale, relative to the size at which images are evaluated.
        cat_max_ratio: Largest share of a crop that one class may cover; other crops are drawn again, up to ten times. 1 accepts
            any crop.
        hflip: Probability of a horizontal flip.
        photometric: Change brightness, contrast, saturation and hue, each with probability 0.5.

    Raises:
        UserError: A probability or share is outside [0, 1], ``min_scale`` is 0 or less, or it exceeds ``max_scale``.

    Example:
        >>> import numpy as np
        >>> from lit_splitmask.augment import SegmentAugment
        >>> crop = SegmentAugment(photometric=False).build(32, short_side=None, fill=np.zeros(3, dtype=np.uint8))
        >>> image, classes = crop(np.zeros((40, 60, 3), dtype=np.uint8), np.zeros((40, 60), dtype=np.int16), 0)
        >>> image.shape, classes.shape
        ((32, 32, 3), (32, 32))
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
                f"The crop's min_scale={self.min_scale} must be greater than 0 and at most max_scale={self.max_scale}."
            )

    def build(self, image_size: int, *, short_side: int | None, fill: np.ndarray) -> JointTransform:
        """Makes the function of an image, its classes and a seed.

        Args:
            image_size: Side of the crops, in pixels.
            short_side: Short side of images at scale 1, in pixels; None for the size on disk.
            fill: (3,) uint8, the colour beyond the image's edges.
        """
        return _SegmentTransform(self, image_size, short_side, fill)


class _SegmentTransform:
    def __init__(self, augment: SegmentAugment, image_size: int, short_side: int | None, fill: np.ndarray) -> None:
        self.augment, self.image_size, self.short_side, self.fill = augment, image_size, short_side, fill

    def __call__(self, image: np.ndarray, classes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        scale = scale_for(classes.shape, self.short_side) * generator.uniform(
            self.augment.min_scale, self.augment.max_scale
        )
        top, left, height, width = self._crop_box(generator, classes, scale)
        shape = tuple(min(self.image_size, max(1, round(side * scale))) for side in (height, width))
        pixels = resize_to(image[top : top + height, left : left + width], shape)
        labels = resize_classes(classes[top : top + height, left : left + width], shape)
        if generator.random() < self.augment.hflip:
            pixels, labels = flip(pixels), flip(labels)
        if self.augment.photometric:
            pixels = distort(generator, pixels)
        return self._pad(pixels, labels)

    def _crop_box(self, generator: np.random.Generator, classes: np.ndarray, scale: float) -> tuple[int, int, int, int]:
        """Draws the part to crop: top, left, height and width, in pixels of the unscaled image."""
        full_height, full_width = classes.shape
        side = max(1, round(self.image_size / scale))
        height, width = min(full_height, side), min(full_width, side)
        for _ in range(_MAX_TRIES):
            top = int(generator.integers(full_height - height + 1))
            left = int(generator.integers(full_width - width + 1))
            if self.augment.cat_max_ratio == 1:
                break
            part = classes[top : top + height, left : left + width]
            counts = np.bincount(part[part != IGNORED])
            if (counts > 0).sum() > 1 and counts.max() < self.augment.cat_max_ratio * counts.sum():
                break
        return top, left, height, width

    def _pad(self, pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pads both to the full size, at the right and at the bottom."""
        size = (self.image_size, self.image_size)
        height, width = labels.shape
        if (height, width) == size:
            return pixels, labels
        crop = np.empty((*size, 3), dtype=np.uint8)
        crop[:] = self.fill
        crop[:height, :width] = pixels
        target = np.full(size, IGNORED, dtype=np.int16)
        target[:height, :width] = labels
        return crop, target


def scale_for(shape: tuple[int, ...], short_side: int | None) -> float:
    """The factor that scales an image of (height, width) to the short side, or its long side to four times that if smaller."""
    if short_side is None:
        return 1.0
    return min(short_side / min(shape), _MAX_ASPECT * short_side / max(shape))


def resize_to(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes an image, antialiased bicubic: (H, W, 3) uint8 to (height, width, 3) uint8."""
    if image.shape[:2] == shape:
        return np.ascontiguousarray(image)
    channels_last = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(channels_last, list(shape), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy()[0])


def resize_classes(classes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes a label map by nearest neighbour at the pixels' centres: (H, W) to (height, width)."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(classes.shape, shape, strict=True)
    )
    return classes[rows[:, None], columns]


def distort(generator: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Photometric distortion (SSD, in mmsegmentation's version), each step with probability 0.5.

    Brightness changes by up to 32, contrast and saturation by a factor of 0.5 to 1.5, and hue by up to 36 degrees; contrast
    comes before or after saturation and hue.

    Args:
        generator: Source of randomness.
        image: (H, W, 3) uint8; not modified.

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
    """``values * factor + offset`` of uint8 values, clipped to 0 to 255."""
    table = (np.arange(256) * factor + offset).clip(0, 255).astype(np.uint8)
    return table[values]
