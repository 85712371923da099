"""Samples patches from a stream of views, uniformly over images, in bounded memory."""

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
    """Samples up to ``max_patches`` scaled patches, the same number from each image, without replacement.

    Args:
        tokenizer: Cuts and scales the patches.
        views: Batches (B, C, h, w) float in [0, 1], read as a stream and no further than needed.
        num_images: Images in the stream.
        max_patches: Most patches in the sample, which bounds the memory (max_patches · d floats).
        per_image: Most patches from one image; None for as many as ``max_patches`` needs.
        seed: Seed of the sample.

    Returns:
        (num, d) float32, in the order of the images in the stream.
    """
    generator = generator_for(seed, "sample patches")
    per_image = per_image or math.ceil(max_patches / num_images)
    sample: Tensor | None = None
    count = 0
    for view in views:
        patches = tokenizer.patches(view)  # (B, N, d)
        batch, num_patches, dim = patches.shape
        if sample is None:
            sample = torch.empty(min(max_patches, num_images * min(per_image, num_patches)), dim)
        order = torch.rand(batch, num_patches, generator=generator).argsort(dim=1)[:, :per_image]
        drawn = patches.gather(1, order.to(patches.device)[:, :, None].expand(-1, -1, dim)).flatten(0, 1)
        drawn = drawn[: len(sample) - count]
        sample[count : count + len(drawn)] = drawn.cpu()
        count += len(drawn)
        if count == len(sample):
            break
    return sample[:count] if sample is not None else torch.empty(0, tokenizer.codebook.shape[1])
