"""Samples patches from a stream of views, uniformly over images, in bounded memory."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lit_splitmask.seeding import generator_for
from lit_splitmask.tokenizers.base import Codebook
from lit_splitmask.tokenizers.progress import counted


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
    per_image = per_image or math.ceil(max_patches / num_images)
    sample: Tensor | None = None
    count = 0
    for drawn in drawn_patches(tokenizer, views, per_image, num_images, seed):
        if sample is None:
            sample = torch.empty(min(max_patches, num_images * drawn.shape[1]), drawn.shape[2])
        rows = drawn.flatten(0, 1)[: len(sample) - count]
        sample[count : count + len(rows)] = rows
        count += len(rows)
        if count == len(sample):
            break
    return sample[:count] if sample is not None else torch.empty(0, tokenizer.codebook.shape[1])


def drawn_patches(
    tokenizer: Codebook, views: Iterable[Tensor], per_image: int, num_images: int, seed: int
) -> Iterator[Tensor]:
    """Draws scaled patches of each image without replacement, in random order; the same ones for any batch size.

    Args:
        tokenizer: Cuts and scales the patches.
        views: Batches (B, C, h, w) float in [0, 1].
        per_image: Most patches from one image.
        num_images: Images that will be read, for the progress bar.
        seed: Seed of the draws.

    Yields:
        (B, min(per_image, N), d) float32 on the CPU, for each batch.
    """
    generator = generator_for(seed, "sample patches")
    for view in counted(views, num_images, "patches of training crops", len):
        patches = tokenizer.patches(view)  # (B, N, d)
        batch, num_patches, dim = patches.shape
        order = torch.rand(batch, num_patches, generator=generator).argsort(dim=1)[:, :per_image]
        yield patches.gather(1, order.to(patches.device)[:, :, None].expand(-1, -1, dim)).cpu()
