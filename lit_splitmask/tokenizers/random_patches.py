"""Patches of the training images as words (Section 3.3, "random patches")."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.seeding import generator_for
from lit_splitmask.tokenizers.base import CONSTANT_PATCH_NORM, Codebook
from lit_splitmask.tokenizers.sampling import sample_patches


class RandomPatches(Codebook):
    """V patches of training images, as few per image as possible: one if there are V images (Section 5.5).

    Constant patches have no direction and are never words.
    """

    def fit(self, views: Iterable[Tensor], num_images: int, seed: int) -> None:
        per_image = 2 * math.ceil(self.vocabulary / num_images)  # twice, as constant patches are dropped
        patches = sample_patches(self, views, num_images, per_image * num_images, per_image=per_image, seed=seed)
        usable = patches.norm(dim=1) > CONSTANT_PATCH_NORM
        if usable.sum() < self.vocabulary:
            raise UserError(
                f"The training images have {int(usable.sum()):,} usable patches for a vocabulary of {self.vocabulary:,} words: "
                "choose a smaller vocabulary, or random projection, which needs no patches."
            )
        # The first usable patch of every image in random order, then the second of every image, and so on.
        number = usable.reshape(-1, min(per_image, len(patches) // num_images)).cumsum(dim=1).flatten()
        key = number + torch.rand(len(patches), generator=generator_for(seed, "random patches"), dtype=torch.float64)
        self.set_codebook(patches[key.masked_fill(~usable, torch.inf).argsort()[: self.vocabulary]])
