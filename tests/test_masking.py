"""Masks are of exact size and reproducible, splits are disjoint, and block masks look like BEiT's."""

import random
from typing import Any

import pytest
import torch
from reference.block_masks import beit_half_mask, same_down, same_neighbours, topped_up_mask

from lit_splitmask.errors import UserError
from lit_splitmask.masking import BlockMasking, Masking, UniformMasking, hidden_from, put, take

GRIDS = [(14, 14), (6, 6), (2, 3), (16, 16), (7, 8)]
HALVES: list[Masking] = [BlockMasking(), UniformMasking(0.5)]


def drawn(masking: Masking, batch_size: int, grid: tuple[int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    masking.check_split(grid)
    return masking.split(batch_size, grid, torch.Generator().manual_seed(seed))


def visible(masking: Masking, batch_size: int, grid: tuple[int, int], seed: int = 0) -> torch.Tensor:
    masking.check(grid)
    return masking.visible(batch_size, grid, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("masking", HALVES, ids=["block", "uniform"])
def test_halves_are_a_partition_of_exactly_equal_parts(masking: Masking, grid: tuple[int, int]) -> None:
    num_patches = grid[0] * grid[1]
    keep_a, keep_b = drawn(masking, 500, grid)
    assert keep_a.shape == keep_b.shape == (500, num_patches // 2)
    assert keep_a.dtype == keep_b.dtype == torch.int64
    everything = torch.cat([keep_a, keep_b], dim=1).sort(dim=1).values
    assert torch.equal(everything, torch.arange(num_patches).expand(500, -1))


@pytest.mark.parametrize("grid", [*GRIDS, (7, 7), (5, 3)])
@pytest.mark.parametrize("mask_ratio", [0.6, 0.75, 0.9])
def test_uniform_subsets_are_disjoint_and_of_exact_size_on_any_grid(mask_ratio: float, grid: tuple[int, int]) -> None:
    num_patches = grid[0] * grid[1]
    masking = UniformMasking(mask_ratio)
    keep_a, keep_b = drawn(masking, 300, grid)
    assert keep_a.shape == keep_b.shape == (300, masking.num_visible(num_patches))
    assert abs(keep_a.shape[1] - num_patches * (1 - mask_ratio)) <= 0.5 or keep_a.shape[1] == 1
    both = torch.cat([keep_a, keep_b], dim=1).sort(dim=1).values
    assert (both.diff(dim=1) > 0).all()
    assert both.min() >= 0
    assert both.max() < num_patches


@pytest.mark.parametrize("masking", [*HALVES, UniformMasking(0.75), UniformMasking(0.75, complement=True)])
def test_indices_ascend_in_each_row(masking: Masking) -> None:
    for keep in drawn(masking, 50, (6, 6)):
        assert (keep.diff(dim=1) > 0).all()


@pytest.mark.parametrize("grid", [(14, 14), (7, 8)])
@pytest.mark.parametrize("masking", [*HALVES, UniformMasking(0.75), UniformMasking(0.75, complement=True)])
def test_one_branch_sees_what_the_first_of_two_would(masking: Masking, grid: tuple[int, int]) -> None:
    assert torch.equal(visible(masking, 20, grid, seed=3), drawn(masking, 20, grid, seed=3)[0])


@pytest.mark.parametrize("grid", [*GRIDS, (7, 7), (5, 3)])
@pytest.mark.parametrize("mask_ratio", [0.01, 0.3, 0.4, 0.5, 0.6, 0.75, 0.99])
def test_one_branch_may_see_any_share_of_any_grid(mask_ratio: float, grid: tuple[int, int]) -> None:
    num_patches = grid[0] * grid[1]
    for masking in (UniformMasking(mask_ratio), BlockMasking(mask_ratio=mask_ratio)):
        keep = visible(masking, 100, grid)
        assert 0 < keep.shape[1] < num_patches
        assert abs(keep.shape[1] - num_patches * (1 - mask_ratio)) <= 0.5 or keep.shape[1] in (1, num_patches - 1)
        assert (keep.diff(dim=1) > 0).all()
        assert keep.min() >= 0
        assert keep.max() < num_patches


def test_three_quarters_hidden_means_two_quarters_seen_by_no_more_than_one_branch() -> None:
    keep_a, keep_b = drawn(UniformMasking(0.75), 10, (14, 14))
    assert keep_a.shape == keep_b.shape == (10, 49)


def test_the_complement_sees_all_that_the_first_branch_does_not() -> None:
    keep_a, keep_b = drawn(UniformMasking(0.75, complement=True), 20, (14, 14))
    assert keep_a.shape == (20, 49)
    assert torch.equal(keep_b, hidden_from(keep_a, 196))


@pytest.mark.parametrize("masking", [*HALVES, UniformMasking(0.75)])
def test_the_same_generator_gives_the_same_split_and_another_gives_another(masking: Masking) -> None:
    first, again, other = (drawn(masking, 8, (14, 14), seed) for seed in (3, 3, 4))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("masking", [*HALVES, UniformMasking(0.75)])
def test_images_of_a_batch_have_splits_of_their_own(masking: Masking) -> None:
    keep_a, _ = drawn(masking, 64, (14, 14))
    assert len({tuple(row) for row in keep_a.tolist()}) == 64


@pytest.mark.parametrize("grid", [(7, 7), (3, 5)])
@pytest.mark.parametrize("masking", HALVES, ids=["block", "uniform"])
def test_a_grid_of_an_odd_number_of_patches_cannot_be_halved(masking: Masking, grid: tuple[int, int]) -> None:
    masking.check(grid)  # one branch may see a little more or less than half
    with pytest.raises(UserError, match=f"{grid[0]}×{grid[1]}.*two equal halves: choose"):
        masking.check_split(grid)


def test_a_grid_of_one_row_has_no_blocks() -> None:
    for check in (BlockMasking().check, BlockMasking().check_split):
        with pytest.raises(UserError, match="at least 2×2"):
            check((1, 8))


def test_a_single_patch_cannot_be_masked() -> None:
    for check in (UniformMasking(0.75).check, UniformMasking(0.75).check_split):
        with pytest.raises(UserError, match="larger images"):
            check((1, 1))


@pytest.mark.parametrize("mask_ratio", [-0.1, 0.0, 1.0, 1.5])
@pytest.mark.parametrize("masking", [UniformMasking, BlockMasking])
def test_a_mask_ratio_that_shows_or_hides_everything_is_refused(masking: Any, mask_ratio: float) -> None:
    with pytest.raises(UserError, match=f"mask_ratio is {mask_ratio}"):
        masking(mask_ratio=mask_ratio)


@pytest.mark.parametrize("mask_ratio", [0.1, 0.49])
def test_a_mask_ratio_that_leaves_no_disjoint_halves_is_refused_for_two_branches(mask_ratio: float) -> None:
    masking = UniformMasking(mask_ratio)
    masking.check((4, 4))
    with pytest.raises(UserError, match=f"mask_ratio is {mask_ratio}.*from 0.5"):
        masking.check_split((4, 4))


def test_a_masking_without_checks_accepts_any_grid() -> None:
    class Refuses(Masking):
        def check(self, grid: tuple[int, int]) -> None:
            raise UserError(f"not {grid}")

    Masking().check((1, 1))
    Masking().check_split((1, 1))
    with pytest.raises(UserError, match="not"):  # the check of two branches is that of one, unless it is overridden
        Refuses().check_split((1, 1))


def test_impossible_blocks_are_refused() -> None:
    with pytest.raises(UserError, match="min_patches=20"):
        BlockMasking(min_patches=20, max_patches=10)
    with pytest.raises(UserError, match="min_aspect is 2"):
        BlockMasking(min_aspect=2)


def test_uniform_masks_hide_every_patch_equally_often() -> None:
    keep_a, _ = drawn(UniformMasking(0.75), 4000, (6, 6))
    frequency = torch.bincount(keep_a.flatten(), minlength=36) / 4000
    assert (frequency - 0.25).abs().max() < 5 * (0.25 * 0.75 / 4000) ** 0.5  # five standard errors


def hidden_maps(keep_b: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    hidden = torch.zeros(len(keep_b), grid[0] * grid[1]).scatter_(1, keep_b, 1.0)
    return hidden.reshape(-1, *grid)


@pytest.mark.parametrize("ratio", [75 / 196, 0.5])
def test_block_masks_are_those_of_the_loop_that_trims_after_ten_misses(ratio: float) -> None:
    target = round(196 * ratio)
    for seed in range(60):
        ours = hidden_maps(drawn(BlockMasking(mask_ratio=ratio), 1, (14, 14), seed)[1], (14, 14))[0].bool().tolist()
        assert ours == topped_up_mask(14, 14, target, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("grid", "ratio", "hidden"), [((14, 14), 75 / 196, 75), ((14, 14), 0.5, 98), ((6, 6), 0.4, 14)]
)
def test_block_masks_hide_exactly_their_share(grid: tuple[int, int], ratio: float, hidden: int) -> None:
    keep, rest = drawn(BlockMasking(mask_ratio=ratio), 50, grid)
    assert rest.shape == (50, hidden)
    assert keep.shape == (50, grid[0] * grid[1] - hidden)


def test_blocks_are_tall_and_wide_equally_often() -> None:
    masks = hidden_maps(drawn(BlockMasking(), 1000, (14, 14))[1], (14, 14)).bool()
    down, across = (sum(map(same_down, maps.tolist())) / 1000 for maps in (masks, masks.transpose(1, 2)))
    assert abs(down - across) < 0.01


def test_block_masks_hide_the_positions_that_the_published_loop_hides() -> None:
    ours = hidden_maps(drawn(BlockMasking(), 3000, (14, 14))[1], (14, 14)).mean(dim=0)
    rng = random.Random(0)
    theirs = torch.tensor([beit_half_mask(14, 14, rng) for _ in range(600)]).float().mean(dim=0)
    # Symmetric positions have the same probability: averaging over them leaves less noise than 600 draws have.
    ours, theirs = (sum(torch.rot90(x, k) + torch.rot90(x, k).flip(0) for k in range(4)) / 8 for x in (ours, theirs))
    assert (ours - theirs).abs().max() < 0.07
    assert ours[6, 6] > ours[0, 0] + 0.2  # the middle is hidden far more often than the corners


def test_block_masks_are_as_blocky_as_those_of_the_published_loop() -> None:
    ours = hidden_maps(drawn(BlockMasking(), 300, (14, 14))[1], (14, 14)).bool().tolist()
    uniform = hidden_maps(drawn(UniformMasking(0.5), 300, (14, 14))[1], (14, 14)).bool().tolist()
    rng = random.Random(1)
    theirs = [beit_half_mask(14, 14, rng) for _ in range(300)]
    blocky, published, loose = (sum(map(same_neighbours, masks)) / 300 for masks in (ours, theirs, uniform))
    assert abs(blocky - published) < 0.02
    assert blocky > loose + 0.2


def test_blocks_scale_with_the_grid() -> None:
    for grid in ((6, 6), (28, 28)):
        maps = hidden_maps(drawn(BlockMasking(), 200, grid)[1], grid).bool().tolist()
        assert sum(map(same_neighbours, maps)) / 200 > 0.6  # 0.5 for independent patches


def test_what_is_put_where_it_was_taken_from_gives_the_sequence_back() -> None:
    tokens = torch.randn(5, 36, 7)
    keep_a, keep_b = drawn(UniformMasking(0.5), 5, (6, 6))
    halves = put(take(tokens, keep_b), keep_b, put(take(tokens, keep_a), keep_a, torch.zeros_like(tokens)))
    assert torch.equal(halves, tokens)


def test_taking_follows_the_order_of_the_indices() -> None:
    tokens = torch.randn(2, 6, 3)
    keep = torch.tensor([[4, 0, 5], [1, 3, 2]])
    expected = torch.stack([torch.stack([tokens[b, i] for i in row]) for b, row in enumerate(keep.tolist())])
    assert torch.equal(take(tokens, keep), expected)


def test_putting_leaves_the_rest_and_the_given_sequence_alone() -> None:
    filled = torch.zeros(1, 4, 2)
    result = put(torch.ones(1, 2, 2), torch.tensor([[3, 1]]), filled)
    assert result[0, :, 0].tolist() == [0, 1, 0, 1]
    assert not filled.any()


@pytest.mark.parametrize("num_visible", [1, 5, 9])
def test_hidden_patches_are_those_that_are_not_kept(num_visible: int) -> None:
    keep = torch.rand(20, 10).argsort(dim=1)[:, :num_visible]
    expected = [sorted(set(range(10)) - set(row)) for row in keep.tolist()]
    assert hidden_from(keep, 10).tolist() == expected
