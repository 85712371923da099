"""The augmentation of detection: views of an image, which map its boxes and masks along with its pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lit_splitmask.annotations import rle
from lit_splitmask.augment.base import Augment, check_fractions
from lit_splitmask.errors import UserError

MakeView = Callable[[int, int, int], "View"]
"""``(height, width, seed) -> view``, for an image of that size."""


@dataclass(frozen=True)
class View:
    """A part of an image, resized and possibly flipped.

    Resizing, cropping and resizing again is also one view. So pixels are interpolated once, and polygons are rasterised at
    their final size.

    Attributes:
        left, top, width, height: The part, in whole pixels of the image.
        out_width, out_height: Size of the result, in pixels.
        flip: Whether to flip it horizontally.
    """

    left: int
    top: int
    width: int
    height: int
    out_width: int
    out_height: int
    flip: bool = False

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """The view of an image, antialiased bilinear: (H, W, 3) uint8 -> (out_height, out_width, 3) uint8."""
        part = torch.from_numpy(np.array(pixels[self.top : self.top + self.height, self.left : self.left + self.width]))
        result = F.interpolate(
            part[None].permute(0, 3, 1, 2), (self.out_height, self.out_width), mode="bilinear", antialias=True
        )[0].permute(1, 2, 0)
        return (result.flip(1) if self.flip else result).contiguous().numpy()

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps points from the image to the view, without clipping: (…, 2) of x and y."""
        scale = np.array([self.out_width / self.width, self.out_height / self.height])
        moved = (np.asarray(points, dtype=np.float64) - [self.left, self.top]) * scale
        if self.flip:
            moved[..., 0] = self.out_width - moved[..., 0]
        return moved

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Maps boxes from the image to the view, without clipping: (n, 4) of left, top, right and bottom."""
        corners = self.points(boxes.reshape(-1, 2, 2))
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    def mask(self, segmentation: Any, size: tuple[int, int]) -> np.ndarray:
        """The mask of an object in the view.

        Args:
            segmentation: COCO's polygons or run lengths.
            size: Height and width of the image.

        Returns:
            (out_height, out_width) bool.
        """
        out = (self.out_height, self.out_width)
        if isinstance(segmentation, list):
            moved = [self.points(np.reshape(polygon, (-1, 2))).ravel().tolist() for polygon in segmentation]
            return rle.decode([rle.rasterise(moved, out)], out)[0].numpy()
        whole = rle.decode([rle.rasterise(segmentation, size)], size)
        part = whole[:, self.top : self.top + self.height, self.left : self.left + self.width].float()
        mask = F.interpolate(part[None], out, mode="bilinear", antialias=True)[0, 0] >= 0.5
        return (mask.flip(1) if self.flip else mask).numpy()


def fit(height: float, width: float, short: float, longest: float) -> tuple[int, int]:
    """Height and width after resizing the shorter side to ``short``, or the longer one to ``longest`` if it would exceed that."""
    scale = min(short / min(height, width), longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def whole_view(height: int, width: int, seed: int = 0, *, short: int, longest: int) -> View:
    """The whole image, resized, for evaluation; the seed is ignored."""
    out_height, out_width = fit(height, width, short, longest)
    return View(0, 0, width, height, out_width, out_height)


@dataclass(frozen=True)
class DetectionAugment(Augment):
    """Flip and multi-scale resizing, of the whole image or of a random part (as in DETR and Swin).

    All sizes are proportional to the short side in evaluation. With 800: short sides of 480 to 800 in steps of 32; for a part,
    the image is resized to a short side of 400, 500 or 600, and 384 to 600 pixels in each direction are cut out.

    Args:
        hflip: Probability of a horizontal flip.
        crop: Probability of a random part instead of the whole image.
        min_scale: Smallest short side, as a share of the short side in evaluation.
        num_scales: Number of short sides to choose from.

    Raises:
        UserError: A probability or share is outside [0, 1], ``min_scale`` is 0, or ``num_scales`` is less than 1.

    Example:
        >>> from lit_splitmask.augment import DetectionAugment
        >>> view = DetectionAugment(crop=0.0, num_scales=1, hflip=0.0).view(480, 640, 0, short=320, longest=533)
        >>> view.out_height, view.out_width
        (192, 256)
    """

    hflip: float = 0.5
    crop: float = 0.5
    min_scale: float = 0.6
    num_scales: int = 11

    def __post_init__(self) -> None:
        check_fractions(hflip=self.hflip, crop=self.crop, min_scale=self.min_scale)
        if self.min_scale == 0 or self.num_scales < 1:
            raise UserError(
                f"The augmentation settings min_scale={self.min_scale} and num_scales={self.num_scales} must be greater than 0."
            )

    def build(self, image_size: int) -> Callable[..., View]:
        """Makes the function of height, width and seed; it also takes the largest long side as ``longest``."""
        return partial(self.view, short=image_size)

    def view(self, height: int, width: int, seed: int, *, short: int, longest: int) -> View:
        """Draws a view.

        Args:
            height, width: Size of the image, in pixels.
            seed: Seed of the view.
            short: Short side in evaluation, in pixels.
            longest: Largest long side, in pixels.
        """
        generator = np.random.default_rng(seed)
        left, top, part_width, part_height = 0, 0, width, height
        if generator.random() < self.crop:
            # The image is not resized first: the part is expressed in its original pixels.
            scale = fit(height, width, short * generator.choice([0.5, 0.625, 0.75]), np.inf)[0] / height
            part_height, part_width = (
                min(side, max(1, round(generator.uniform(0.48, 0.75) * short / scale))) for side in (height, width)
            )
            top = int(generator.integers(height - part_height + 1))
            left = int(generator.integers(width - part_width + 1))
        side = short * generator.choice(np.linspace(self.min_scale, 1.0, self.num_scales))
        out_height, out_width = fit(part_height, part_width, side, longest)
        return View(left, top, part_width, part_height, out_width, out_height, bool(generator.random() < self.hflip))
