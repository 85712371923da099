"""Several crops of each image, for methods that compare them."""

from dataclasses import dataclass, field

from lit_splitmask.augment.base import Augment, Transform
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.errors import UserError


@dataclass(frozen=True)
class MultiCrop(Augment):
    """Two global crops of the datamodule's image size, and smaller local crops (DINO's multi-crop; MoCo v3's two views).

    Args:
        first, second: Augmentations of the global crops.
        local: Augmentation of the local crops.
        num_local: Number of local crops.
        local_size: Side of the local crops in pixels, a multiple of the patch size.

    Raises:
        UserError: ``num_local`` is negative, or ``local_size`` is less than 1.

    Example:
        >>> from lit_splitmask.augment import MultiCrop
        >>> MultiCrop(num_local=2, local_size=16).sizes(32)
        [32, 32, 16, 16]
    """

    first: PretrainAugment = field(default_factory=PretrainAugment)
    second: PretrainAugment = field(default_factory=PretrainAugment)
    local: PretrainAugment = field(default_factory=lambda: PretrainAugment(min_scale=0.05, max_scale=0.4))
    num_local: int = 0
    local_size: int = 96

    def __post_init__(self) -> None:
        if self.num_local < 0 or self.local_size < 1:
            raise UserError(
                f"num_local={self.num_local} must be at least 0, and local_size={self.local_size} at least 1."
            )

    def sizes(self, image_size: int) -> list[int]:
        """Sides of the crops, in pixels.

        Raises:
            UserError: The local crops are larger than the global ones.
        """
        if self.num_local and self.local_size > image_size:
            raise UserError(
                f"The local crops of {self.local_size} px are larger than the global ones of {image_size} px: set "
                "augment.local_size below data.image_size."
            )
        return [image_size, image_size] + [self.local_size] * self.num_local

    def build(self, image_size: int) -> Transform:
        """Makes the function of an image and a seed for the first global crop."""
        return self.first.build(image_size)

    def build_all(self, image_size: int) -> list[Transform]:
        """Makes one function per crop.

        Raises:
            UserError: The local crops are larger than the global ones.
        """
        augments = [self.first, self.second] + [self.local] * self.num_local
        return [augment.build(size) for augment, size in zip(augments, self.sizes(image_size), strict=True)]
