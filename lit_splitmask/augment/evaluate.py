"""The view of evaluation: a centre crop, without randomness."""

from dataclasses import dataclass

import numpy as np

from lit_splitmask.augment.base import resize


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
