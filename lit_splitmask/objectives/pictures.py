"""Columns of the pictures that masked methods draw.

B images, N patches, n of them visible, d pixel values in a patch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.masking import put, take
from lit_splitmask.tokenizers.base import Tokenizer
from lit_splitmask.tokenizers.pictures import GREY, words_as_patches
from lit_splitmask.views import patchify, unpatchify

Pictures = dict[str, Tensor]
"""Columns of a picture by title: (B, C, H, W) float in [0, 1], one image per row."""

ToPixels = Callable[[Tensor], Tensor]
"""Maps normalised images (B, C, H, W) to pixels in [0, 1]."""


def show_only(pixels: Tensor, keep: Tensor, patch_size: int) -> Tensor:
    """Greys out all patches of ``pixels`` (B, C, H, W) except ``keep`` (B, n)."""
    visible = take(patchify(pixels, patch_size), keep)
    return fill(torch.full_like(pixels, GREY), visible, keep, patch_size)


def fill(images: Tensor, patches: Tensor, index: Tensor, patch_size: int) -> Tensor:
    """Puts ``patches`` (B, m, d) at the positions ``index`` (B, m) of ``images`` (B, C, H, W) and returns the new images."""
    grid = (images.shape[2] // patch_size, images.shape[3] // patch_size)
    return unpatchify(put(patches, index, patchify(images, patch_size)), patch_size, grid)


def draw_words(tokenizer: Tokenizer, views: Tensor, words: Tensor) -> Tensor:
    """Draws words (B, N) at the images' size, as means of patches of the half-size ``views`` (B', C, h, w): (B, C, 2h, 2w)."""
    return F.interpolate(words_as_patches(tokenizer, views, words), scale_factor=2.0, mode="nearest")
