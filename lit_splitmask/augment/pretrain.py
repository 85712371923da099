"""The augmentation of pre-training: random resized crop, flip and optional colour augmentation."""

import random
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from lit_splitmask.augment.base import Augment, CropTransform, Transform, check_fractions, crop_box, flip, resize_box
from lit_splitmask.errors import UserError


@dataclass(frozen=True)
class PretrainAugment(Augment):
    """Random resized crop and flip, with optional colour augmentation.

    The paper's strong augmentation (Section 5.5) is ``color_jitter=0.8, grayscale=0.2, blur=0.5, solarize=0.2``; the paper
    states no probabilities, so these are MoCo v3's. The jitter's strengths are (0.4, 0.4, 0.2, 0.1).

    Args:
        min_scale, max_scale: Bounds of the crop's share of the image's area.
        hflip: Probability of a horizontal flip.
        color_jitter: Probability of changing brightness, contrast, saturation and hue.
        grayscale: Probability of converting to greyscale.
        blur: Probability of a Gaussian blur, sigma 0.1 to 2.
        solarize: Probability of inverting all values of at least 128.
        token_crop: Where the half-size view of the tokenizer comes from in training: ``mean``, the mean of each 2×2 block of the
            crop; or ``lanczos``, the same part of the image, resized once more with Pillow's Lanczos filter, as in BEiT. Held-out
            images have the mean.

    Raises:
        UserError: A probability or share is outside [0, 1], ``min_scale`` is 0, ``min_scale`` exceeds ``max_scale``, or
            ``token_crop`` is unknown, or ``lanczos`` with colour augmentation, which BEiT's two views do not have.

    Example:
        >>> import numpy as np
        >>> from lit_splitmask.augment import PretrainAugment
        >>> crop = PretrainAugment(min_scale=0.2).build(32)
        >>> crop(np.zeros((40, 60, 3), dtype=np.uint8), 0).shape  # an image and a seed
        (32, 32, 3)
    """

    min_scale: float = 0.08
    max_scale: float = 1.0
    hflip: float = 0.5
    color_jitter: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0
    token_crop: Literal["mean", "lanczos"] = "mean"

    def __post_init__(self) -> None:
        check_fractions(**{name: value for name, value in vars(self).items() if name != "token_crop"})
        if self.token_crop not in ("mean", "lanczos"):
            raise UserError(f"token_crop is {self.token_crop!r}; it must be mean or lanczos.")
        if self.token_crop == "lanczos" and max(self.color_jitter, self.grayscale, self.blur, self.solarize) > 0:
            raise UserError("token_crop=lanczos works only with crops and flips: leave out the colour augmentation.")
        if not 0 < self.min_scale <= self.max_scale:
            raise UserError(
                f"The crop's min_scale={self.min_scale} must be greater than 0 and at most max_scale={self.max_scale}."
            )

    def build(self, image_size: int) -> Transform:
        """Makes the function of an image and a seed."""
        return _PretrainTransform(self, image_size)

    def build_all(self, image_size: int) -> list[Transform]:
        """The function of the crop and, with ``token_crop=lanczos``, that of the tokenizer's view."""
        crop = self.build(image_size)
        return [crop, _TokenCrop(self, image_size // 2)] if self.token_crop == "lanczos" else [crop]


class _TokenCrop:
    """The half-size view of the crop that :class:`_PretrainTransform` makes for the same seed."""

    follows_first = True

    def __init__(self, augment: PretrainAugment, size: int) -> None:
        self.augment, self.size = augment, size

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        height, width = image.shape[:2]
        box = crop_box(generator, height, width, min_scale=self.augment.min_scale, max_scale=self.augment.max_scale)
        part = Image.fromarray(np.ascontiguousarray(image)).crop(box)
        crop = np.array(part.resize((self.size, self.size), Image.Resampling.LANCZOS))
        return flip(crop) if generator.random() < self.augment.hflip else crop


class _PretrainTransform(CropTransform):
    def __init__(self, augment: PretrainAugment, image_size: int) -> None:
        super().__init__(image_size)
        self.augment = augment
        self.colour = None
        if max(augment.color_jitter, augment.grayscale, augment.blur, augment.solarize) > 0:
            self.colour = _colour(augment)
            # All steps share one pair of generators. Compose.set_random_seed would seed a separate generator for each step with
            # the same number: their first draws would be equal, and every greyscale image would also be solarised.
            self.bits = np.random.PCG64(0)
            self.python = random.Random(0)
            self.colour.set_random_state(np.random.Generator(self.bits), self.python)

    def write(self, image: np.ndarray, seed: int, crop: np.ndarray) -> None:
        generator = np.random.default_rng(seed)
        height, width = image.shape[:2]
        box = crop_box(generator, height, width, min_scale=self.augment.min_scale, max_scale=self.augment.max_scale)
        resize_box(image, self.image_size, box, flipped=generator.random() < self.augment.hflip, out=crop)
        if self.colour is not None:
            self.bits.state = np.random.PCG64(seed).state
            self.python.seed(seed)
            crop[...] = self.colour(image=crop)["image"]


def _colour(augment: PretrainAugment) -> Any:
    """The colour steps that are on."""
    import albumentations as A  # takes a third of a second

    jitter = A.ColorJitter(
        brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.8, 1.2), hue=(-0.1, 0.1), p=augment.color_jitter
    )
    steps = [
        jitter,
        A.ToGray(p=augment.grayscale),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=augment.blur),
        A.Solarize(threshold_range=(0.5, 0.5), p=augment.solarize),
    ]
    return A.Compose([step for step in steps if step.p > 0])
