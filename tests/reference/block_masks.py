"""BEiT's block masking as published: one image at a time, in Python loops, without the top-up to an exact count.

Behaviour of ``masking_generator.py`` of the BEiT release: area uniform between the bounds, aspect ratio log-uniform, a
block strictly smaller than the grid on both sides, accepted if it adds at least one new patch and no more than are
wanted, ten tries a block, and the end at the first block for which ten tries add nothing.
"""

import math
import random


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
        added = _add_block(hidden, min(target - count, max_patches), target - count, rng, min_patches, min_aspect)
        if not added:
            break
        count += added
    return hidden


def _add_block(
    hidden: list[list[bool]], largest: int, wanted: int, rng: random.Random, min_patches: int, min_aspect: float
) -> int:
    """Adds one block to ``hidden`` and returns how many patches are new; 0 after ten tries in vain."""
    rows, columns = len(hidden), len(hidden[0])
    for _ in range(10):
        area = rng.uniform(min_patches, largest)
        aspect = math.exp(rng.uniform(math.log(min_aspect), math.log(1 / min_aspect)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= rows or width >= columns:
            continue
        top, left = rng.randint(0, rows - height), rng.randint(0, columns - width)
        block = [(r, c) for r in range(top, top + height) for c in range(left, left + width)]
        new = [(r, c) for r, c in block if not hidden[r][c]]
        if 0 < len(new) <= wanted:
            for r, c in new:
                hidden[r][c] = True
            return len(new)
    return 0


def beit_half_mask(rows: int, columns: int, rng: random.Random) -> list[list[bool]]:
    """One mask that hides exactly half: draws until the published loop happens to be exact."""
    while True:
        hidden = beit_block_mask(rows, columns, rows * columns // 2, rng)
        if sum(map(sum, hidden)) == rows * columns // 2:
            return hidden


def same_neighbours(hidden: list[list[bool]]) -> float:
    """Share of the pairs of adjacent patches that are both hidden or both visible: how blocky a mask is."""
    rows, columns = len(hidden), len(hidden[0])
    pairs = [(hidden[r][c], hidden[r + 1][c]) for r in range(rows - 1) for c in range(columns)]
    pairs += [(hidden[r][c], hidden[r][c + 1]) for r in range(rows) for c in range(columns - 1)]
    return sum(a == b for a, b in pairs) / len(pairs)
