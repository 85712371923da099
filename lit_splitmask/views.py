"""From uint8 crops to the inputs of the network and the tokenizer; shared by training and codebook fitting.

B images, C channels, H and W height and width, N patches, P patch size in pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Per-channel statistics of ImageNet's pixels in [0, 1]."""

INTERPOLATION = "bicubic"
"""How the centre crops of evaluation are resized (:class:`EvalTransform`)."""


def default_statistics(in_chans: int) -> tuple[Sequence[float], Sequence[float]]:
    """Default per-channel mean and standard deviation of pixels in [0, 1]: ImageNet's for 3 channels, otherwise 0.5 and 0.25."""
    return (IMAGENET_MEAN, IMAGENET_STD) if in_chans == 3 else ([0.5] * in_chans, [0.25] * in_chans)


def network_view(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalises crops for the network.

    Args:
        images: (B, C, H, W) uint8.
        mean, std: Per-channel statistics of pixels in [0, 1], (C,) float32.

    Returns:
        (B, C, H, W) float32.
    """
    return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]


def token_view(images: Tensor, *more: Tensor) -> Tensor:
    """The half-size view of crops for the tokenizer: the first of ``more`` if it is one, otherwise the mean of each 2×2 block.

    Args:
        images: (B, C, H, W) uint8, H and W even.
        more: Further crops of the same images, uint8; a single one of (B, C, H/2, W/2) is the view.

    Returns:
        (B, C, H/2, W/2) float32 in [0, 1].
    """
    if len(more) == 1 and 2 * more[0].shape[-1] == images.shape[-1]:
        return more[0].float() / 255
    return F.avg_pool2d(images.float(), 2) / 255


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cuts images into patches, row by row: (B, C, H, W) -> (B, N, C·P·P), each patch flattened from (C, P, P)."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_size**2)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patchify`: (B, N, C·P·P) -> (B, C, H, W), where ``grid`` is (H / P, W / P)."""
    batch, (rows, columns) = patches.shape[0], grid
    images = patches.reshape(batch, rows, columns, -1, patch_size, patch_size)
    return torch.einsum("brchpq->bhrpcq", images).reshape(batch, -1, rows * patch_size, columns * patch_size)
