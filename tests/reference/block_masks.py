"""BEiT's block masking as published: one image at a time, in Python loops, without the top-up to an exact count.

Behaviour of ``masking_generator.py`` of the BEiT release: area uniform between the bounds, aspect ratio log-uniform, a
block strictly smaller than the grid on both sides, accepted if it adds at least one new patch and no more than are
still to hide, ten tries per block, and the end at the first block for which ten tries add nothing.

And the project's variant with the top-up, in loops.
"""

import itertools
import math
import random

import torch


def beit_block_mask(
    rows: int,
    columns: int,
    target: int,
    rng: random.Random,
    *,
    min_patches: int = 16,
    max_patches: int = 75,
    min_aspect: float = 0.3,
) -> list[list[bool]]:
    """One mask, True where hidden; hides ``target`` patches or a few less."""
    hidden = [[False] * columns for _ in range(rows)]
    count = 0
    while count < target:
        added = _add_block(hidden, target - count, rng, min_patches, max_patches, min_aspect)
        if not added:
            break
        count += added
    return hidden


def _add_block(
    hidden: list[list[bool]], room: int, rng: random.Random, min_patches: int, max_patches: int, min_aspect: float
) -> int:
    """Adds one block of at most ``room`` new patches to ``hidden`` and returns their number; 0 after ten failed tries."""
    rows, columns = len(hidden), len(hidden[0])
    for _ in range(10):
        area = rng.uniform(min_patches, min(room, max_patches))
        aspect = math.exp(rng.uniform(math.log(min_aspect), math.log(1 / min_aspect)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= rows or width >= columns:
            continue
        top, left = rng.randint(0, rows - height), rng.randint(0, columns - width)
        block = [(r, c) for r in range(top, top + height) for c in range(left, left + width)]
        new = [(r, c) for r, c in block if not hidden[r][c]]
        if 0 < len(new) <= room:
            for r, c in new:
                hidden[r][c] = True
            return len(new)
    return 0


def beit_half_mask(rows: int, columns: int, rng: random.Random) -> list[list[bool]]:
    """One mask that hides exactly half: repeats the published loop until it is exact."""
    while True:
        hidden = beit_block_mask(rows, columns, rows * columns // 2, rng)
        if sum(map(sum, hidden)) == rows * columns // 2:
            return hidden


def topped_up_mask(rows: int, columns: int, target: int, generator: torch.Generator) -> list[list[bool]]:
    """One mask that hides exactly ``target`` patches of a 14×14 grid, as :class:`BlockMasking` draws it.

    Sides are shortened to the grid, and after ten misses in a row the next block that adds too many patches is trimmed to its
    first ones in reading order.
    """
    hidden = [[False] * columns for _ in range(rows)]
    misses = 0
    while (room := target - sum(map(sum, hidden))) > 0:
        u = torch.rand(4, 1, generator=generator)[:, 0].tolist()
        area = 16 + u[0] * max(0, min(room, 75) - 16)
        aspect = math.exp((2 * u[1] - 1) * math.log(1 / 0.3))
        height = min(max(round(math.sqrt(area * aspect)), 1), rows - 1)
        width = min(max(round(math.sqrt(area / aspect)), 1), columns - 1)
        top, left = int(u[2] * (rows - height + 1)), int(u[3] * (columns - width + 1))
        block = [(r, c) for r in range(top, top + height) for c in range(left, left + width)]
        new = [(r, c) for r, c in block if not hidden[r][c]]
        if len(new) > room and misses == 10:
            new = new[:room]
        if 0 < len(new) <= room:
            misses = 0
            for r, c in new:
                hidden[r][c] = True
        else:
            misses = min(misses + 1, 10)
    return hidden


def same_neighbours(hidden: list[list[bool]]) -> float:
    """Share of the pairs of adjacent patches that are both hidden or both visible: how blocky a mask is."""
    rows, columns = len(hidden), len(hidden[0])
    down, across = same_down(hidden), same_down([list(column) for column in zip(*hidden, strict=True)])
    pairs_down, pairs_across = (rows - 1) * columns, rows * (columns - 1)
    return (down * pairs_down + across * pairs_across) / (pairs_down + pairs_across)


def same_down(hidden: list[list[bool]]) -> float:
    """Share of the pairs of patches, one below the other, that are both hidden or both visible."""
    pairs = [pair for upper, lower in itertools.pairwise(hidden) for pair in zip(upper, lower, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)
