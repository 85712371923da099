"""Masks in COCO's run-length encoding, by pycocotools (the ``dense`` extra)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_splitmask.errors import UserError

_MOST_BITS = 60

Rle = dict[str, Any]
"""``size`` (height, width) and ``counts``, compressed (bytes)."""


def require() -> Any:
    """The module ``pycocotools.mask``.

    Raises:
        UserError: It is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise UserError(
            "Detection and its AP need pycocotools, which is not installed. Install it with: pip install 'lit-splitmask[dense]' "
            "(or pip install pycocotools)."
        ) from None
    return mask


def encode(masks: Iterable[Tensor]) -> list[Rle]:
    """Run lengths of masks, (H, W) bool or uint8 each; one at a time, so that they need not all be in memory."""
    require()
    return [_encode(mask) for mask in masks]


def _encode(mask: Tensor) -> Rle:
    return dict(require().encode(np.asfortranarray(mask.to(torch.uint8).cpu().numpy())))


def decode(rles: Sequence[Rle], size: tuple[int, int]) -> Tensor:
    """Masks (n, H, W) bool; ``size`` (H, W) is for the case of none."""
    if not rles:
        return torch.zeros(0, *size, dtype=torch.bool)
    return torch.from_numpy(require().decode(list(rles))).permute(2, 0, 1).bool()


def run_lengths(counts: str | bytes) -> list[int]:
    """Compressed runs as numbers: five bits per character, the sixth says that more follow; the fourth run and those after it are
    differences to the run before the last.

    Raises:
        ValueError: They are cut, or hold other characters or too large numbers.
    """
    runs: list[int] = []
    value = shift = 0
    for code in counts.encode() if isinstance(counts, str) else counts:
        bits = code - 48
        if not 0 <= bits < 64:
            raise ValueError(f"the character {chr(code)!r}")
        if shift > _MOST_BITS:  # each further character would make the number longer, in quadratic time
            raise ValueError("a number of more than 60 bits")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("an end in the middle of a number")
    return runs


def rasterise(segmentation: Any, size: tuple[int, int]) -> Rle:
    """COCO's ``segmentation`` as run lengths: polygons (of at least 3 points), uncompressed or compressed runs.

    Args:
        segmentation: A list of polygons (x, y, x, y, …), or a dict of ``size`` and ``counts``.
        size: Height and width of the image.

    Raises:
        UserError: Runs have a different size than the image.
    """
    mask = require()
    height, width = size
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != (height, width):
            raise UserError(
                f"A run-length mask of {segmentation['size']} belongs to an image of {[height, width]} (height, width): "
                "correct the size in the annotation file."
            )
        if isinstance(segmentation["counts"], list):
            return dict(mask.frPyObjects(segmentation, height, width))
        counts = segmentation["counts"]
        return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    return dict(mask.merge(mask.frPyObjects(segmentation, height, width)))


def as_json(rle: Rle) -> Rle:
    """The same with text in place of bytes, as in COCO's result files."""
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }
