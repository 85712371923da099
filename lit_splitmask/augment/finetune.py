"""The augmentation of supervised training: random crop, flip, RandAugment and random erasing."""

from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lit_splitmask.augment.base import Augment, CropTransform, Transform, check_fractions, crop_box, resize_box
from lit_splitmask.errors import UserError
from lit_splitmask.seeding import seeded_python_and_numpy

_IMAGENET_MEAN_PIXEL = (124, 116, 104)
_IMAGENET_STD_PIXEL = 57.0  # one standard deviation of normalised pixels, in pixel values


@dataclass(frozen=True)
class FinetuneAugment(Augment):
    """Random resized crop, flip, timm's RandAugment and random erasing, as in DeiT and BEiT (Table 9).

    There is no colour jitter: timm leaves it out whenever RandAugment is on, although the recipes list both.

    Args:
        min_scale: Smallest share of the image's area that a crop covers.
        hflip: Probability of a horizontal flip.
        rand_augment: timm's policy string, such as ``rand-m9-mstd0.5-inc1``; None for no RandAugment.
        erase: Probability of overwriting a rectangle with noise.
        repeats: Repeated augmentation: number of differently augmented copies of an image in a row; 3 in DeiT and Table 9. The
            total number of images seen stays the same, so fewer of them are different.
        as_timm: Whether two details are those of timm's training: RandAugment resamples bicubically, not bilinearly or
            bicubically by chance; and the noise of erasing is around ImageNet's mean pixel, not around the image's own.

    Raises:
        UserError: A probability or share is outside [0, 1], ``min_scale`` is 0, or ``repeats`` is less than 1.

    Example:
        >>> import numpy as np
        >>> from lit_splitmask.augment import FinetuneAugment
        >>> crop = FinetuneAugment(rand_augment="rand-m9-mstd0.5-inc1").build(32)
        >>> crop(np.zeros((40, 60, 3), dtype=np.uint8), 0).shape  # an image and a seed
        (32, 32, 3)
    """

    min_scale: float = 0.08
    hflip: float = 0.5
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    erase: float = 0.25
    repeats: int = 1
    as_timm: bool = False

    def __post_init__(self) -> None:
        check_fractions(min_scale=self.min_scale, hflip=self.hflip, erase=self.erase)
        if self.min_scale == 0:
            raise UserError("The crop's min_scale=0.0 must be greater than 0; the usual value is 0.08.")
        if self.repeats < 1:
            raise UserError(f"repeats={self.repeats}, but it must be at least 1; DeiT uses 3.")

    def build(self, image_size: int) -> Transform:
        """Makes the function of an image and a seed.

        Raises:
            UserError: timm does not understand ``rand_augment``.
        """
        return _FinetuneTransform(self, image_size)


class _FinetuneTransform(CropTransform):
    def __init__(self, augment: FinetuneAugment, image_size: int) -> None:
        super().__init__(image_size)
        self.augment = augment
        self.policy = None
        if augment.rand_augment is not None:
            from timm.data.auto_augment import rand_augment_transform

            constants: dict[str, Any] = {"translate_const": int(0.45 * image_size), "img_mean": _IMAGENET_MEAN_PIXEL}
            if augment.as_timm:
                constants["interpolation"] = Image.Resampling.BICUBIC
            try:
                self.policy = rand_augment_transform(augment.rand_augment, constants)
            except (AssertionError, ValueError, KeyError) as error:
                raise UserError(
                    f"rand_augment={augment.rand_augment!r} is not a policy that timm knows ({error}). Pass a string such as "
                    "'rand-m9-mstd0.5-inc1', or null for no RandAugment."
                ) from error
            _limit_posterize(self.policy)

    def write(self, image: np.ndarray, seed: int, crop: np.ndarray) -> None:
        generator = np.random.default_rng(seed)
        box = crop_box(generator, image.shape[0], image.shape[1], min_scale=self.augment.min_scale)
        resize_box(image, self.image_size, box, flipped=generator.random() < self.augment.hflip, out=crop)
        if self.policy is not None:
            with seeded_python_and_numpy(seed):  # timm's policies use these generators
                crop[...] = np.asarray(self.policy(Image.fromarray(crop)))
        if generator.random() < self.augment.erase:
            crop[...] = erase(generator, crop, mean=_IMAGENET_MEAN_PIXEL if self.augment.as_timm else None)


def _limit_posterize(policy: Any) -> None:
    """Makes posterisation keep at least one bit: at full strength timm asks for zero bits, which Pillow 13 rejects."""
    from timm.data.auto_augment import posterize

    for op in policy.ops:
        if op.aug_fn is posterize:
            op.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    return image if bits >= 8 else ImageOps.posterize(image, max(1, bits))


def erase(generator: np.random.Generator, image: np.ndarray, *, mean: tuple[int, int, int] | None = None) -> np.ndarray:
    """Overwrites a random rectangle, 2 % to a third of the area, with noise in each pixel (timm's ``pixel`` mode).

    Args:
        generator: Source of the rectangle and the noise.
        image: (H, W, 3) uint8; not modified.
        mean: Mean of the noise per channel; None for that of the image. timm's is ImageNet's.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * generator.uniform(0.02, 1 / 3)
        ratio = exp(generator.uniform(log(0.3), log(1 / 0.3)))
        h, w = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < w < width and 0 < h < height:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            centre = image.mean(axis=(0, 1)) if mean is None else np.array(mean)
            noise = generator.standard_normal((h, w, 3)) * _IMAGENET_STD_PIXEL + centre
            erased = image.copy()
            erased[top : top + h, left : left + w] = noise.round().clip(0, 255)
            return erased
    return image
