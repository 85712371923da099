"""Patches of the training images as words (Section 3.3, "random patches")."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.seeding import generator_for
from lit_splitmask.tokenizers.base import CONSTANT_PATCH_NORM, Codebook
from lit_splitmask.tokenizers.sampling import drawn_patches

FITTING_VERSION = 2
"""Changes whenever the same images give other words, so that earlier kept codebooks are not used."""


class RandomPatches(Codebook):
    """V patches of training images, as few per image as possible: one if there are V images (Section 5.5).

    Constant patches have no direction and are never words. No more images are read than necessary: of a large set, which comes in
    random order, about V.
    """

    @property
    def fitted_by(self) -> dict[str, Any]:
        return {"version": FITTING_VERSION}

    def fit(self, views: Iterable[Tensor], num_images: int, seed: int) -> None:
        per_image = 2 * math.ceil(self.vocabulary / num_images)  # twice, as constant patches are dropped
        found: list[Tensor] = []
        numbers: list[Tensor] = []  # 1 for the first usable patch of an image, 2 for the second, …
        num_words = num_firsts = 0
        for drawn in drawn_patches(self, views, per_image, min(num_images, self.vocabulary), seed):
            usable = drawn.norm(dim=2) > CONSTANT_PATCH_NORM
            found.append(drawn[usable])
            numbers.append(usable.cumsum(dim=1)[usable])
            num_words += int(usable.sum())
            num_firsts += int(usable.any(dim=1).sum())
            if num_firsts >= self.vocabulary:
                break
        if num_words < self.vocabulary:
            raise UserError(
                f"The training images have {num_words:,} usable patches for a vocabulary of {self.vocabulary:,} words: "
                "choose a smaller vocabulary, or random projection, which needs no patches."
            )
        # The first usable patch of every image in random order, then the second of every image, and so on.
        key = torch.cat(numbers) + torch.rand(
            num_words, generator=generator_for(seed, "random patches"), dtype=torch.float64
        )
        self.set_codebook(torch.cat(found)[key.argsort()[: self.vocabulary]])
