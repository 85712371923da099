"""The centre crop for evaluation."""

from dataclasses import dataclass

import numpy as np

from lit_splitmask.augment.base import resize


@dataclass(frozen=True)
class EvalTransform:
    """Resizes the short side to ``image_size / crop_ratio`` and crops the centre; ignores the seed.

    Args:
        image_size: Side of the crop, in pixels.
        crop_ratio: Share of the short side that the crop covers.
    """

    image_size: int
    crop_ratio: float = 0.875

    def __call__(self, image: np.ndarray, seed: int = 0) -> np.ndarray:
        """Crops (H, W, 3) uint8 to (image_size, image_size, 3) uint8; enlarges a smaller image."""
        height, width = image.shape[:2]
        side = min(height, width) * self.crop_ratio
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return resize(image, self.image_size, box)
