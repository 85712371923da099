"""Random vectors as words (Section 3.3, "random projection"), which need no fitting."""

from typing import Literal

import torch

from lit_splitmask.seeding import generator_for
from lit_splitmask.tokenizers.base import Codebook


class RandomProjection(Codebook):
    """Random vectors with uniform components.

    Args:
        patch_size, in_chans, vocabulary, pixels, codebook_file: As in :class:`Codebook`.
        signed: Whether components are drawn from [−1, 1) instead of [0, 1). The paper says only "uniform". Words are more varied
            with [0, 1) on normalised pixels, and with [−1, 1) on centred pixels.
        codebook_seed: Seed of the vectors.

    Raises:
        UserError: As in :class:`Codebook`.
    """

    def __init__(
        self,
        patch_size: int,
        in_chans: int = 3,
        *,
        vocabulary: int = 8192,
        pixels: Literal["normalised", "centred"] = "normalised",
        signed: bool = False,
        codebook_seed: int = 0,
        codebook_file: str | None = None,
    ) -> None:
        super().__init__(patch_size, in_chans, vocabulary=vocabulary, pixels=pixels, codebook_file=codebook_file)
        if self.needs_fitting:
            vectors = torch.rand(self.codebook.shape, generator=generator_for(codebook_seed, "random projection"))
            self.set_codebook(2 * vectors - 1 if signed else vectors)
