"""Pictures of visual words."""

import torch
from torch import Tensor

from lit_splitmask.tokenizers.base import Tokenizer
from lit_splitmask.views import patchify, unpatchify

GREY = 0.5


@torch.no_grad()
def words_as_patches(tokenizer: Tokenizer, views: Tensor, words: Tensor) -> Tensor:
    """Draws each word as the mean of the patches that have it; a word that does not occur is grey.

    Args:
        tokenizer: Gives the words of ``views``.
        views: (B', C, h, w) float in [0, 1], half-size views whose patches are averaged.
        words: (B, N) int64, the words to draw.

    Returns:
        (B, C, h, w) float in [0, 1].
    """
    patches = patchify(views, tokenizer.patch_size).flatten(0, 1)  # (B'·N, d)
    known = tokenizer(views).flatten()
    total = patches.new_zeros(tokenizer.vocabulary, patches.shape[1]).index_add_(0, known, patches)
    count = torch.bincount(known, minlength=tokenizer.vocabulary)[:, None]
    pictures = torch.where(count > 0, total / count.clamp(min=1), GREY)
    rows = views.shape[2] // tokenizer.patch_size
    return unpatchify(pictures[words], tokenizer.patch_size, (rows, views.shape[3] // tokenizer.patch_size))
