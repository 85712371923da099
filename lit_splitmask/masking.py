"""Which patches a masked method sees, and how tokens are taken from and put into a sequence.

B images, N patches of a grid of (rows, columns), n visible patches, D width.
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
    """Returns the sequence ``filled`` (B, N, D) with ``tokens`` (B, n, D) at the positions ``keep`` (B, n)."""
    return filled.scatter(1, keep[:, :, None].expand(-1, -1, tokens.shape[-1]), tokens.to(filled.dtype))


def hidden_from(keep: Tensor, num_patches: int) -> Tensor:
    """The indices that are not in ``keep``: (B, n) -> (B, N − n), ascending in each row."""
    visible = torch.zeros(keep.shape[0], num_patches, dtype=torch.bool, device=keep.device).scatter_(1, keep, True)
    return _indices(~visible)


def _indices(chosen: Tensor) -> Tensor:
    """Indices of the true entries of a (B, N) mask with the same number of them in every row."""
    return chosen.nonzero()[:, 1].reshape(chosen.shape[0], -1)


class Masking:
    """Draws the patches that are visible: to one branch, or to each of two (SplitMask's).

    Subclasses implement :meth:`draw` and, if they cannot mask every grid, the checks.
    """

    def check(self, grid: tuple[int, int]) -> None:
        """Checks that one branch can be masked on ``grid``.

        Raises:
            UserError: It cannot.
        """

    def check_split(self, grid: tuple[int, int]) -> None:
        """Checks that two branches can be masked on ``grid``.

        Raises:
            UserError: They cannot.
        """
        self.check(grid)

    def draw(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Split:
        """Draws the split of ``batch_size`` images on the CPU."""
        raise NotImplementedError

    def visible(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draws what one branch sees of this process's ``batch_size`` images: branch A of :meth:`split`.

        Returns:
            (B, n) int64, ascending in each row.
        """
        return local_rows(self.draw(batch_size * world_size(), grid, generator)[0])

    def split(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Split:
        """Draws what two branches see of this process's ``batch_size`` images.

        Every process draws for the global batch and keeps its own rows, so W processes see the same masks as one.
        """
        a, b = self.draw(batch_size * world_size(), grid, generator)
        return local_rows(a), local_rows(b)


class UniformMasking(Masking):
    """Uniformly random patches (MAE's masks; the small-set recipe of Section 5.5).

    A branch sees a share ``1 - mask_ratio`` of the patches, at least one and not all. Two branches see disjoint patches: at 75 %,
    two quarters. With ``complement``, branch B sees everything that A does not: at 75 %, three quarters.

    Args:
        mask_ratio: Share of the patches hidden from a branch, in (0, 1); two branches need at least 0.5.
        complement: Whether branch B sees the complement of branch A.

    Raises:
        UserError: ``mask_ratio`` is outside (0, 1).
    """

    def __init__(self, mask_ratio: float = 0.75, complement: bool = False) -> None:
        _check_ratio(mask_ratio)
        self.mask_ratio, self.complement = mask_ratio, complement

    def num_visible(self, num_patches: int) -> int:
        """Number of patches that branch A sees."""
        return min(max(1, round(num_patches * (1 - self.mask_ratio))), num_patches - 1)

    def check(self, grid: tuple[int, int]) -> None:
        """Checks that one branch can be masked on ``grid``.

        Raises:
            UserError: The grid has one patch.
        """
        if grid[0] * grid[1] < 2:
            raise UserError(
                f"A grid of {grid[0]}×{grid[1]} patches is too small to hide a part of it: use larger images."
            )

    def check_split(self, grid: tuple[int, int]) -> None:
        """Checks that two branches can be masked on ``grid``.

        Raises:
            UserError: The grid has one patch; ``mask_ratio`` is below 0.5; or it is 0.5 and the grid has an odd number of
                patches.
        """
        self.check(grid)
        if self.mask_ratio < 0.5:
            raise UserError(
                f"mask_ratio is {self.mask_ratio}, but the two branches see disjoint patches, so each can see at most one half: "
                "choose a mask_ratio from 0.5 up to (not including) 1, or a method with one branch, such as MAE."
            )
        if self.mask_ratio == 0.5:
            _check_even(grid)

    def draw(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Split:
        """Draws the split of ``batch_size`` images on the CPU."""
        num_patches = grid[0] * grid[1]
        visible = self.num_visible(num_patches)
        order = torch.rand(batch_size, num_patches, generator=generator).argsort(dim=1)
        keep_b = order[:, visible:] if self.complement else order[:, visible : 2 * visible]
        return order[:, :visible].sort(dim=1).values, keep_b.sort(dim=1).values


class BlockMasking(Masking):
    """BEiT's block masks that hide an exact number of patches, one half by default; branch B sees what is hidden from A.

    Blocks are drawn as in BEiT (Section 5.5; ``masking_generator.py`` of the BEiT release): area uniform between ``min_patches``
    and ``max_patches`` (or the number still to hide, if that is less), aspect ratio log-uniform in [``min_aspect``,
    1/``min_aspect``]. A block counts if it adds at least one patch and no more than are still to hide. A side longer than the
    grid is shortened (BEiT draws again), which hides central patches slightly more often.

    BEiT's loop gives up after ten misses in a row, and then hides too few patches in about 30 % of the draws. Here the next block
    is trimmed to the number still to hide, so the two halves are always equal.

    Args:
        min_patches, max_patches: Bounds of a block's area on a 14×14 grid; scaled with the size of the grid.
        min_aspect: The smallest ratio of height to width, in (0, 1].
        mask_ratio: Share of the patches hidden from branch A, in (0, 1); BEiT's "40 %" are 75 of 196.

    Raises:
        UserError: ``min_patches`` is below 1 or above ``max_patches``; ``min_aspect`` is outside (0, 1]; or ``mask_ratio`` is
            outside (0, 1).
    """

    def __init__(
        self, min_patches: int = 16, max_patches: int = 75, min_aspect: float = 0.3, mask_ratio: float = 0.5
    ) -> None:
        if not 1 <= min_patches <= max_patches:
            raise UserError(f"min_patches={min_patches} and max_patches={max_patches}: 1 ≤ min ≤ max is needed.")
        if not 0 < min_aspect <= 1:
            raise UserError(f"min_aspect is {min_aspect}; it must be in (0, 1].")
        _check_ratio(mask_ratio)
        self.min_patches, self.max_patches, self.min_aspect = min_patches, max_patches, min_aspect
        self.mask_ratio = mask_ratio

    def check(self, grid: tuple[int, int]) -> None:
        """Checks that one branch can be masked on ``grid``.

        Raises:
            UserError: The grid has a single row or column.
        """
        if min(grid) < 2:
            raise UserError(f"Block masks need a grid of at least 2×2 patches, not {grid[0]}×{grid[1]}.")

    def check_split(self, grid: tuple[int, int]) -> None:
        """Checks that two branches can be masked on ``grid``.

        Raises:
            UserError: The grid has a single row or column; or ``mask_ratio`` is 0.5 and the grid has an odd number of patches.
        """
        self.check(grid)
        if self.mask_ratio == 0.5:
            _check_even(grid)

    def draw(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> Split:
        """Draws the split of ``batch_size`` images on the CPU."""
        hidden = torch.from_numpy(self._draw_hidden(batch_size, grid, generator)).flatten(1)
        return _indices(~hidden), _indices(hidden)

    def _draw_hidden(self, batch_size: int, grid: tuple[int, int], generator: torch.Generator) -> BoolArray:
        """Draws the masks of all images together: (B, rows, columns), the same number true in each.

        In NumPy, because many small torch operations wait for torch's threads, which is slow while workers use the cores.
        """
        hidden = np.zeros((batch_size, *grid), dtype=bool)
        num_patches = grid[0] * grid[1]
        to_hide = np.full(batch_size, min(max(1, round(num_patches * self.mask_ratio)), num_patches - 1))
        misses = np.zeros(batch_size, dtype=np.int64)
        unfinished = np.arange(batch_size)
        while len(unfinished):
            room = to_hide[unfinished]
            new = self._draw_blocks(room, grid, generator) & ~hidden[unfinished]
            added = np.count_nonzero(new, axis=(1, 2))
            trim = (misses[unfinished] >= 10) & (added > room)
            if trim.any():
                new[trim] = _first(new[trim], room[trim])
                added[trim] = room[trim]
            accepted = (added > 0) & (added <= room)
            hidden[unfinished[accepted]] |= new[accepted]
            to_hide[unfinished] -= np.where(accepted, added, 0)
            misses[unfinished] = np.where(accepted, 0, misses[unfinished] + 1)
            unfinished = unfinished[to_hide[unfinished] > 0]
        return hidden

    def _draw_blocks(self, room: IntArray, grid: tuple[int, int], generator: torch.Generator) -> BoolArray:
        """Draws one rectangle per image, (B, rows, columns); ``room`` (B,) patches are still to hide."""
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


def _check_ratio(mask_ratio: float) -> None:
    if not 0 < mask_ratio < 1:
        raise UserError(f"mask_ratio is {mask_ratio}; it must be more than 0 and less than 1.")


def _check_even(grid: tuple[int, int]) -> None:
    if grid[0] * grid[1] % 2:
        raise UserError(
            f"A grid of {grid[0]}×{grid[1]} = {grid[0] * grid[1]} patches cannot be cut into two equal halves: choose an image "
            "size that gives an even number of patches, or uniform masks with another mask_ratio (0.75)."
        )
