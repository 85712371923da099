"""Words that are random vectors (Section 3.3, "random projection"): nothing to fit."""

from typing import Literal

import torch

from lit_splitmask.seeding import generator_for
from lit_splitmask.tokenizers.base import Codebook


class RandomProjection(Codebook):
    """Vectors with uniform components, drawn once from ``codebook_seed``.

    Args:
        patch_size, in_chans, vocabulary, pixels, codebook_file: see :class:`Codebook`.
        signed: components from [−1, 1) instead of [0, 1). The paper says "uniform"; the range is left open. On merely
            normalised pixels [0, 1) gives the richer words, on centred ones [−1, 1).
        codebook_seed: seed of the vectors.
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
