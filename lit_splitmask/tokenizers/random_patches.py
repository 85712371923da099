"""Words that are patches of the training images (Section 3.3, "random patches")."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.seeding import generator_for
from lit_splitmask.tokenizers.base import CONSTANT_PATCH_NORM, Codebook
from lit_splitmask.tokenizers.sampling import sample_patches


class RandomPatches(Codebook):
    """V training patches, one an image where there are V images (Section 5.5), else as few an image as will do.

    Constant patches have no direction and are not taken as words.
    """

    def fit(self, views: Iterable[Tensor], num_images: int, seed: int) -> None:
        per_image = 2 * math.ceil(self.vocabulary / num_images)  # twice, since constant patches fall out
        patches = sample_patches(self, views, num_images, per_image * num_images, per_image=per_image, seed=seed)
        usable = patches.norm(dim=1) > CONSTANT_PATCH_NORM
        if usable.sum() < self.vocabulary:
            raise UserError(
                f"The training images gave {int(usable.sum()):,} usable patches for a vocabulary of {self.vocabulary:,} words: "
                "choose a smaller vocabulary, or random projection, which needs no patches."
            )
        # First one of each image in random order, then a second of each, and so on.
        place = usable.reshape(-1, min(per_image, len(patches) // num_images)).cumsum(dim=1).flatten()
        order = place + torch.rand(len(patches), generator=generator_for(seed, "random patches"), dtype=torch.float64)
        self.set_codebook(patches[order.masked_fill(~usable, torch.inf).argsort()[: self.vocabulary]])
