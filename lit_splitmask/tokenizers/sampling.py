"""Draws patches from a stream of views, uniformly over images, in bounded memory."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from lit_splitmask.seeding import generator_for
from lit_splitmask.tokenizers.base import Codebook


def sample_patches(
    tokenizer: Codebook,
    views: Iterable[Tensor],
    num_images: int,
    max_patches: int,
    *,
    per_image: int | None = None,
    seed: int,
) -> Tensor:
    """Draws up to ``max_patches`` scaled patches, the same number from each image and no patch twice.

    Args:
        tokenizer: says how patches are cut and scaled.
        views: batches (B, C, h, w) float in [0, 1]; consumed as a stream.
        num_images: images in the stream.
        max_patches: most patches that are kept; this alone bounds the memory (max_patches · d floats).
        per_image: at most so many from one image; by default what is needed for ``max_patches``.
        seed: of the draw.

    Returns:
        (num, d) float32, in an order that is random over images only if the stream's is.
    """
    generator = generator_for(seed, "sample patches")
    wanted = per_image or math.ceil(max_patches / num_images)
    collected: Tensor | None = None
    count = 0
    for view in views:
        patches = tokenizer.patches(view)  # (B, N, d)
        batch, num_patches, dim = patches.shape
        if collected is None:
            collected = torch.empty(min(max_patches, num_images * min(wanted, num_patches)), dim)
        order = torch.rand(batch, num_patches, generator=generator).argsort(dim=1)[:, :wanted]
        drawn = patches.gather(1, order.to(patches.device)[:, :, None].expand(-1, -1, dim)).flatten(0, 1)
        drawn = drawn[: len(collected) - count]
        collected[count : count + len(drawn)] = drawn.cpu()
        count += len(drawn)
        if count == len(collected):
            break
    return collected[:count] if collected is not None else torch.empty(0, tokenizer.codebook.shape[1])
