"""Which patches each branch of SplitMask sees, and how tokens are taken from and put into a sequence.

B images, N patches of a grid of (rows, columns), n patches that a branch sees, D width.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lit_splitmask.distributed import local_rows, world_size
from lit_splitmask.errors import UserError

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Split = tuple[Tensor, Tensor]
"""The patches that branch A and branch B see: (B, n_a) and (B, n_b) int64, ascending in each row."""


def take(tokens: Tensor, keep: Tensor) -> Tensor:
    """Takes tokens by index: (B, N, D) at (B, n) -> (B, n, D)."""
    return tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[-1]))


def put(tokens: Tensor, keep: Tensor, filled: Tensor) -> Tensor:
    """Puts (B, n, D) tokens at the places ``keep`` (B, n) of a sequence (B, N, D) and returns the new sequence."""
    return filled.scatter(1, keep[:, :, None].expand(-1, -1, tokens.shape[-1]), tokens.to(filled.dtype))


def hidden_from(keep: Tensor, num_patches: int) -> Tensor:
    """The indices that are not in ``keep``: (B, n) -> (B, N − n), ascending in each row."""
    visible = torch.zeros(keep.shape[0], num_patches, dtype=torch.bool, device=keep.device).scatter_(1, keep, True)
    return _indices(~visible)


def _indices(chosen: Tensor) -> Tensor:
    """Indices of the true entries of a (B, N) mask that has the same number of them in every row."""
    return chosen.nonzero()[:, 1].reshape(chosen.shape[0], -1)


class Masking:
    """Draws the two sets of visible patches for a batch; subclasses say how."""

    def check(self, grid: tuple[int, int]) -> None:
        """Raises a :class:`UserError` if this masking cannot be had on ``grid``."""

    def draw(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Split:
        """The split of ``batch_size`` images, drawn on the CPU from ``generator``."""
        raise NotImplementedError

    def split(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Split:
        """The split of this process's ``batch_size`` images.

        Every process draws for the global batch and keeps its rows, so that W processes see what one would.
        """
        a, b = self.draw(batch_size * world_size(), grid, generator)
        return local_rows(a), local_rows(b)


class UniformMasking(Masking):
    """Uniformly random patches (MAE's masks; the small-set recipe of Section 5.5).

    Each branch sees a share ``1 - mask_ratio`` of the patches, and the two never share a patch: at 75 % two disjoint
    quarters. With ``complement`` branch B sees everything that A does not (three quarters).

    Args:
        mask_ratio: share of the patches hidden from a branch, in [0.5, 1).
        complement: the literal complement for branch B.
    """

    def __init__(self, mask_ratio: float = 0.75, complement: bool = False) -> None:
        if not 0.5 <= mask_ratio < 1:
            raise UserError(
                f"mask_ratio is {mask_ratio}, but the two branches see disjoint patches, so each can see one half at "
                "most: choose a mask_ratio from 0.5 up to (not including) 1."
            )
        self.mask_ratio, self.complement = mask_ratio, complement

    def num_visible(self, num_patches: int) -> int:
        """Patches that branch A sees."""
        return max(1, round(num_patches * (1 - self.mask_ratio)))

    def check(self, grid: tuple[int, int]) -> None:
        num_patches = grid[0] * grid[1]
        if self.mask_ratio == 0.5:
            _check_even(grid)
        if num_patches < 2 * self.num_visible(num_patches):
            raise UserError(
                f"A grid of {grid[0]}×{grid[1]} patches is too small to be split in two: use larger images."
            )

    def draw(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Split:
        num_patches = grid[0] * grid[1]
        visible = self.num_visible(num_patches)
        order = torch.rand(batch_size, num_patches, generator=generator).argsort(dim=1)
        keep_b = order[:, visible:] if self.complement else order[:, visible : 2 * visible]
        return order[:, :visible].sort(dim=1).values, keep_b.sort(dim=1).values


class BlockMasking(Masking):
    """BEiT's block masks with an exact number of patches hidden, one half by default; branch B sees what is hidden from A.

    Blocks are drawn as in BEiT (Section 5.5; ``masking_generator.py`` of the BEiT release): area uniform between
    ``min_patches`` and ``max_patches`` (or what is still wanted, if less), aspect ratio log-uniform in
    [``min_aspect``, 1/``min_aspect``], and a block counts if it adds at least one patch and no more than are wanted. A side
    longer than the grid is shortened (BEiT draws again), which masks central patches a little more often.
    The published loop gives up after ten misses in a row and then hides too few patches in about 30 % of the draws;
    here the next block is trimmed to what is still wanted, so that the two halves are always equal. All images of a
    batch are drawn at once.

    Args:
        min_patches, max_patches: bounds of a block's area on a 14×14 grid; scaled to other grids by their size.
        min_aspect: the smallest ratio of height to width.
        mask_ratio: share of the patches hidden from branch A; BEiT's "40 %" are 75 of 196.
    """

    def __init__(
        self, min_patches: int = 16, max_patches: int = 75, min_aspect: float = 0.3, mask_ratio: float = 0.5
    ) -> None:
        if not 1 <= min_patches <= max_patches:
            raise UserError(f"min_patches={min_patches} and max_patches={max_patches}: 1 ≤ min ≤ max is needed.")
        if not 0 < min_aspect <= 1:
            raise UserError(f"min_aspect is {min_aspect}; it must be in (0, 1].")
        if not 0 < mask_ratio < 1:
            raise UserError(f"mask_ratio is {mask_ratio}; it must be more than 0 and less than 1.")
        self.min_patches, self.max_patches, self.min_aspect = min_patches, max_patches, min_aspect
        self.mask_ratio = mask_ratio

    def check(self, grid: tuple[int, int]) -> None:
        if self.mask_ratio == 0.5:
            _check_even(grid)
        if min(grid) < 2:
            raise UserError(f"Block masks need a grid of at least 2×2 patches, not {grid[0]}×{grid[1]}.")

    def draw(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Split:
        hidden = torch.from_numpy(self._draw_hidden(batch_size, grid, generator)).flatten(1)
        return _indices(~hidden), _indices(hidden)

    def _draw_hidden(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> BoolArray:
        """(B, rows, columns), equally many true in each image.

        In NumPy, because many small operations of torch wait for its threads, at length where workers hold the cores.
        """
        hidden = np.zeros((batch_size, *grid), dtype=bool)
        num_patches = grid[0] * grid[1]
        wanted = np.full(batch_size, min(max(1, round(num_patches * self.mask_ratio)), num_patches - 1))
        misses = np.zeros(batch_size, dtype=np.int64)
        todo = np.arange(batch_size)
        while len(todo):
            room = wanted[todo]
            new = self._draw_blocks(room, grid, generator) & ~hidden[todo]
            added = np.count_nonzero(new, axis=(1, 2))
            trim = (misses[todo] >= 10) & (added > room)
            if trim.any():
                new[trim] = _first(new[trim], room[trim])
                added[trim] = room[trim]
            accepted = (added > 0) & (added <= room)
            hidden[todo[accepted]] |= new[accepted]
            wanted[todo] -= np.where(accepted, added, 0)
            misses[todo] = np.where(accepted, 0, misses[todo] + 1)
            todo = todo[wanted[todo] > 0]
        return hidden

    def _draw_blocks(self, room: IntArray, grid: tuple[int, int], generator: torch.Generator) -> BoolArray:
        """One rectangle an image, (B, rows, columns); the size bounds follow the ``room`` (B,) that is left."""
        rows, columns = grid
        scale = rows * columns / 196
        low, high = max(1.0, self.min_patches * scale), max(1.0, self.max_patches * scale)
        u = torch.rand(4, len(room), generator=generator).numpy()
        area = low + u[0] * (room.clip(max=high) - low).clip(min=0)
        aspect = np.exp((2 * u[1] - 1) * math.log(1 / self.min_aspect))
        height = np.sqrt(area * aspect).round().clip(1, rows - 1)
        width = np.sqrt(area / aspect).round().clip(1, columns - 1)
        top, left = np.floor(u[2] * (rows - height + 1)), np.floor(u[3] * (columns - width + 1))
        row, column = np.arange(rows)[None, :], np.arange(columns)[None, :]
        in_rows = (row >= top[:, None]) & (row < (top + height)[:, None])
        in_columns = (column >= left[:, None]) & (column < (left + width)[:, None])
        return in_rows[:, :, None] & in_columns[:, None, :]


def _first(chosen: BoolArray, count: IntArray) -> BoolArray:
    """Keeps the first ``count`` (B,) true entries of each image of (B, rows, columns), in reading order."""
    rank = chosen.reshape(len(chosen), -1).cumsum(axis=1).reshape(chosen.shape)
    return chosen & (rank <= count[:, None, None])


def _check_even(grid: tuple[int, int]) -> None:
    if grid[0] * grid[1] % 2:
        raise UserError(
            f"A grid of {grid[0]}×{grid[1]} = {grid[0] * grid[1]} patches cannot be cut into two equal halves: choose "
            "an image size that gives an even number of patches, or uniform masks with another mask_ratio (0.75)."
        )
