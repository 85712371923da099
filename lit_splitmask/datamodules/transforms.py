"""Crops and augmentations: pure functions of an image and a seed, so that no worker or resume can change them."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lit_splitmask.errors import UserError

Transform = Callable[[np.ndarray, int], np.ndarray]
"""``(image, seed) -> crop``: (H, W, 3) uint8 to (image_size, image_size, 3) uint8."""


class Augment(ABC):
    """The settings of an augmentation; :meth:`build` makes the function, once the input size is known.

    Attributes:
        repeats: How many differently augmented copies of an image follow each other.
    """

    repeats: int = 1

    @abstractmethod
    def build(self, image_size: int) -> Callable[..., Any]:
        """Makes the function of an image and a seed: a :data:`Transform`, where images alone are augmented."""

    def build_all(self, image_size: int) -> list[Transform]:
        """Makes a function for each crop of an image; one here."""
        return [self.build(image_size)]

    def sizes(self, image_size: int) -> list[int]:
        """The crops' sides in pixels."""
        return [image_size]


def check_fractions(**settings: float) -> None:
    """Checks that settings are probabilities or shares.

    Raises:
        UserError: One is outside [0, 1].
    """
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise UserError(f"The augmentation setting {name}={value} must lie between 0 and 1. Correct it.")


@dataclass(frozen=True)
class PretrainAugment(Augment):
    """Random resized crop and flip, with colour augmentation where it is asked for.

    The paper's strong set (Section 5.5; probabilities of MoCo v3, which the paper does not state) is
    ``color_jitter=0.8, grayscale=0.2, blur=0.5, solarize=0.2``. The jitter's strengths are (0.4, 0.4, 0.2, 0.1).

    Args:
        min_scale, max_scale: Bounds of the crop's share of the image's area.
        hflip: Probability of a horizontal flip.
        color_jitter: Probability of brightness, contrast, saturation and hue changes.
        grayscale: Probability of losing the colours.
        blur: Probability of a Gaussian blur, sigma 0.1 to 2.
        solarize: Probability of inverting all values of at least 128.

    Raises:
        UserError: A probability or share is outside [0, 1], or the scales are no range.
    """

    min_scale: float = 0.08
    max_scale: float = 1.0
    hflip: float = 0.5
    color_jitter: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0

    def __post_init__(self) -> None:
        check_fractions(**vars(self))
        if not 0 < self.min_scale <= self.max_scale:
            raise UserError(
                f"The crop's min_scale={self.min_scale} must be more than 0 and at most max_scale={self.max_scale}."
            )

    def build(self, image_size: int) -> Transform:
        """Makes the function of an image and a seed."""
        return _Pretrain(self, image_size)


class _Pretrain:
    def __init__(self, augment: PretrainAugment, image_size: int) -> None:
        import albumentations as A

        self.augment, self.image_size = augment, image_size
        jitter = A.ColorJitter(
            brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.8, 1.2), hue=(-0.1, 0.1), p=augment.color_jitter
        )
        steps = [
            jitter,
            A.ToGray(p=augment.grayscale),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=augment.blur),
            A.Solarize(threshold_range=(0.5, 0.5), p=augment.solarize),
        ]
        self.colour = A.Compose([step for step in steps if step.p > 0])
        # One pair of generators for all steps. Compose.set_random_seed would give each step a generator of its own with
        # the same seed: their first draws would be equal, so that every greyscale image would be solarised as well.
        self.bits = np.random.PCG64(0)
        self.python = random.Random(0)
        self.colour.set_random_state(np.random.Generator(self.bits), self.python)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        height, width = image.shape[:2]
        box = crop_box(generator, height, width, min_scale=self.augment.min_scale, max_scale=self.augment.max_scale)
        crop = resize_box(image, self.image_size, box)
        if generator.random() < self.augment.hflip:
            crop = flip(crop)
        if not self.colour.transforms:
            return crop
        self.bits.state = np.random.PCG64(seed).state
        self.python.seed(seed)
        return self.colour(image=crop)["image"]


def crop_box(
    generator: np.random.Generator, height: int, width: int, *, min_scale: float, max_scale: float = 1.0
) -> tuple[int, int, int, int]:
    """A random box of ``min_scale`` to ``max_scale`` of the area and 3:4 to 4:3 in shape.

    After ten misses (a long image, say) it is the largest centred box of that shape and at most ``max_scale``.

    Returns:
        Left, top, right and bottom.
    """
    for _ in range(10):
        area = height * width * generator.uniform(min_scale, max_scale)
        ratio = exp(generator.uniform(log(3 / 4), log(4 / 3)))
        w, h = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
            return left, top, left + w, top + h
    most_w, most_h = min(width, height * 4 / 3), min(height, width * 4 / 3)
    shrink = min(1.0, sqrt(max_scale * height * width / (most_w * most_h)))
    w, h = max(1, int(most_w * shrink)), max(1, int(most_h * shrink))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resize_box(image: np.ndarray, size: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Part of an image as a square, antialiased bicubic; within 3 of 255 of Pillow's result, in a sixth of its time.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the square.
        box: Left, top, right and bottom, in whole pixels.

    Returns:
        (size, size, 3) uint8.
    """
    left, top, right, bottom = box
    part = torch.from_numpy(np.array(image[top:bottom, left:right]))  # a copy: a mapped file is not writable
    channels_last = part[None].permute(0, 3, 1, 2)  # torch is twice as fast if it sees that the batch is in this format
    square = F.interpolate(channels_last, (size, size), mode="bicubic", antialias=True)
    return square.permute(0, 2, 3, 1).numpy()[0]


def flip(image: np.ndarray) -> np.ndarray:
    """An image from right to left, contiguous; in a twentieth of the time of NumPy's reversed copy."""
    return torch.from_numpy(image).flip(1).numpy()


@dataclass(frozen=True)
class EvalTransform:
    """Short side to ``image_size / crop_ratio``, then the centre: no randomness, the seed is ignored.

    Args:
        image_size: Side of the crop.
        crop_ratio: Share of the short side that the crop covers.
    """

    image_size: int
    crop_ratio: float = 0.875

    def __call__(self, image: np.ndarray, seed: int = 0) -> np.ndarray:
        """Crops (H, W, 3) uint8 to (image_size, image_size, 3) uint8; a smaller image is enlarged."""
        height, width = image.shape[:2]
        side = min(height, width) * self.crop_ratio
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return resize(image, self.image_size, box)


def resize(image: np.ndarray, size: int, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """Part of an image as a square, antialiased bicubic.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the square.
        box: Left, top, right and bottom, in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box))
