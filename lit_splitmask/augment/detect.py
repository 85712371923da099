"""Views of an image that move its boxes and masks along: a part of it, resized, perhaps flipped."""

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
"""``(height, width, seed) -> view`` of an image."""


@dataclass(frozen=True)
class View:
    """A part of an image, resized and perhaps flipped: all that an augmentation decides.

    Resizing, cropping and resizing again is one such view too, so that pixels are interpolated once and polygons are
    rasterised at their final size.

    Attributes:
        left, top, width, height: The part, in whole pixels of the image.
        out_width, out_height: Of the result.
        flip: From right to left.
    """

    left: int
    top: int
    width: int
    height: int
    out_width: int
    out_height: int
    flip: bool = False

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (out_height, out_width, 3) uint8, antialiased bilinear."""
        part = torch.from_numpy(np.array(pixels[self.top : self.top + self.height, self.left : self.left + self.width]))
        result = F.interpolate(
            part[None].permute(0, 3, 1, 2), (self.out_height, self.out_width), mode="bilinear", antialias=True
        )[0].permute(1, 2, 0)
        return (result.flip(1) if self.flip else result).contiguous().numpy()

    def points(self, points: np.ndarray) -> np.ndarray:
        """(…, 2) of x and y in the image -> in the view, not clipped."""
        scale = np.array([self.out_width / self.width, self.out_height / self.height])
        moved = (np.asarray(points, dtype=np.float64) - [self.left, self.top]) * scale
        if self.flip:
            moved[..., 0] = self.out_width - moved[..., 0]
        return moved

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) of left, top, right, bottom in the image -> in the view, not clipped."""
        corners = self.points(boxes.reshape(-1, 2, 2))
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    def mask(self, segmentation: Any, size: tuple[int, int]) -> np.ndarray:
        """COCO's segmentation in an image of ``size`` -> (out_height, out_width) bool."""
        out = (self.out_height, self.out_width)
        if isinstance(segmentation, list):
            moved = [self.points(np.reshape(polygon, (-1, 2))).ravel().tolist() for polygon in segmentation]
            return rle.decode([rle.rasterise(moved, out)], out)[0].numpy()
        whole = rle.decode([rle.rasterise(segmentation, size)], size)
        part = whole[:, self.top : self.top + self.height, self.left : self.left + self.width].float()
        mask = F.interpolate(part[None], out, mode="bilinear", antialias=True)[0, 0] >= 0.5
        return (mask.flip(1) if self.flip else mask).numpy()


def fit(height: float, width: float, short: float, longest: float) -> tuple[int, int]:
    """Height and width after the shorter side became ``short``, or the longer one ``longest`` where it would exceed that."""
    scale = min(short / min(height, width), longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def whole_view(height: int, width: int, seed: int = 0, *, short: int, longest: int) -> View:
    """The whole image, resized: for evaluation."""
    out_height, out_width = fit(height, width, short, longest)
    return View(0, 0, width, height, out_width, out_height)


@dataclass(frozen=True)
class DetectionAugment(Augment):
    """Flip and multi-scale resizing, of the whole image or of a random part (DETR's, Swin's).

    All sizes are in proportion to the short side of evaluation: at 800, short sides of 480 to 800 in steps of 32; for the part,
    the image at a short side of 400, 500 or 600, of which 384 to 600 in each direction are taken.

    Args:
        hflip: Probability of a flip.
        crop: Probability of a part in place of the whole.
        min_scale: Shortest short side, as a share of that of evaluation.
        num_scales: Short sides to choose from.

    Raises:
        UserError: A probability or share is outside [0, 1].
    """

    hflip: float = 0.5
    crop: float = 0.5
    min_scale: float = 0.6
    num_scales: int = 11

    def __post_init__(self) -> None:
        check_fractions(hflip=self.hflip, crop=self.crop, min_scale=self.min_scale)
        if self.min_scale == 0 or self.num_scales < 1:
            raise UserError(
                f"The augmentation settings min_scale={self.min_scale} and num_scales={self.num_scales} must be more than 0."
            )

    def build(self, image_size: int) -> Callable[..., View]:
        """Makes the function of an image's height, width and a seed; it needs the longest side, too, as ``longest``."""
        return partial(self.view, short=image_size)

    def view(self, height: int, width: int, seed: int, *, short: int, longest: int) -> View:
        """Draws a view."""
        draw = np.random.default_rng(seed)
        left, top, part_width, part_height = 0, 0, width, height
        if draw.random() < self.crop:
            # the image is not resized for it: its part is found on its own pixels
            scale = fit(height, width, short * draw.choice([0.5, 0.625, 0.75]), np.inf)[0] / height
            part_height, part_width = (
                min(side, max(1, round(draw.uniform(0.48, 0.75) * short / scale))) for side in (height, width)
            )
            top, left = int(draw.integers(height - part_height + 1)), int(draw.integers(width - part_width + 1))
        side = short * draw.choice(np.linspace(self.min_scale, 1.0, self.num_scales))
        out_height, out_width = fit(part_height, part_width, side, longest)
        return View(left, top, part_width, part_height, out_width, out_height, bool(draw.random() < self.hflip))
