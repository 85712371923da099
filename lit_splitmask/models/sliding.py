"""Logits of an image of any size from a network that takes windows of one size."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows that cover ``length`` pixels: one every ``stride``; the last window ends at the edge."""
    count = -(-max(0, length - window) // stride) + 1
    return [min(number * stride, max(0, length - window)) for number in range(count)]


def sliding_logits(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    window: int,
    stride: int,
    patch_size: int,
    most_windows: int = 16,
) -> Tensor:
    """Averages the logits of overlapping windows.

    A side shorter than the window is padded with zeros to whole patches, and the window gets the same length.

    Args:
        network: Maps images (B, C, h, w) to logits (B, K, h, w).
        image: (1, C, H, W) float, normalised.
        window: Side of the windows in pixels, a multiple of the patch size.
        stride: Distance between windows in pixels, at least 1.
        patch_size: Patch size of the network in pixels.
        most_windows: Most windows in a batch of the network.

    Returns:
        Logits, (1, K, H, W) float32.
    """
    height, width = image.shape[-2:]
    down, right = (-side % patch_size if side < window else 0 for side in (height, width))
    padded = F.pad(image, (0, right, 0, down))
    high, wide = min(window, padded.shape[-2]), min(window, padded.shape[-1])
    corners = [
        (top, left)
        for top in window_starts(padded.shape[-2], high, stride)
        for left in window_starts(padded.shape[-1], wide, stride)
    ]
    total: Tensor | None = None
    count = padded.new_zeros(padded.shape[-2:], dtype=torch.float32)
    for first in range(0, len(corners), most_windows):
        batch = corners[first : first + most_windows]
        crops = torch.cat([padded[:, :, top : top + high, left : left + wide] for top, left in batch])
        for (top, left), logits in zip(batch, network(crops).float(), strict=True):
            if total is None:
                total = logits.new_zeros(len(logits), *padded.shape[-2:])
            total[:, top : top + high, left : left + wide] += logits
            count[top : top + high, left : left + wide] += 1
    assert total is not None
    return (total / count)[None, :, :height, :width]
