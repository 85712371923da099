from collections import Counter

import pytest
from torch.utils.data import DistributedSampler

from lit_splitmask.errors import UserError
from lit_splitmask.loading.sampler import EvalSampler, Key, WrapAroundSampler


def keys(num_images: int, batch_size: int, *, steps: int, start: int = 0, **options: int) -> list[Key]:
    sampler = WrapAroundSampler(
        num_images, batch_size, steps_per_epoch=steps, global_step=lambda: start, seed=3, **options
    )
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


@pytest.mark.parametrize(("num_images", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 5), (100, 1)])
def test_every_pass_shows_every_image_once_with_no_tail_dropped(num_images: int, batch_size: int) -> None:
    found = keys(num_images, batch_size, steps=num_images * 3)  # 3 · batch_size complete passes
    assert Counter(found) == Counter((p, i) for p in range(3 * batch_size) for i in range(num_images))
    assert [p for p, _ in found] == sorted(p for p, _ in found)


def test_every_pass_has_a_new_order() -> None:
    found = keys(50, 50, steps=3)
    orders = {tuple(index for p, index in found if p == number) for number in range(3)}
    assert len(orders) == 3
    assert tuple(range(50)) not in orders


@pytest.mark.parametrize("start", [0, 1, 5, 17])
def test_the_order_depends_on_the_step_only(start: int) -> None:
    whole = keys(13, 6, steps=30)
    assert keys(13, 6, steps=4, start=start) == whole[start * 6 : (start + 4) * 6]


def test_an_iteration_asks_for_the_step_when_it_starts() -> None:
    step = 0
    sampler = WrapAroundSampler(9, 4, steps_per_epoch=2, global_step=lambda: step)
    first = list(sampler)
    step = 2
    assert first + list(sampler) == list(WrapAroundSampler(9, 4, steps_per_epoch=4, global_step=lambda: 0))


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_ranks_and_micro_batches_share_a_step_without_overlap(world_size: int, accumulate: int) -> None:
    batch_size, steps = 24, 5
    whole = keys(31, batch_size, steps=steps)
    ranks = [
        keys(31, batch_size, steps=steps, rank=rank, world_size=world_size, accumulate=accumulate)
        for rank in range(world_size)
    ]
    micro = batch_size // world_size // accumulate
    interleaved = [
        key for start in range(0, len(ranks[0]), micro) for found in ranks for key in found[start : start + micro]
    ]
    assert interleaved == whole


def test_lightning_does_not_replace_the_samplers() -> None:
    sampler = WrapAroundSampler(9, 4, steps_per_epoch=2, global_step=lambda: 0)
    assert isinstance(sampler, DistributedSampler)
    sampler.set_epoch(3)
    assert isinstance(EvalSampler(5), DistributedSampler)


@pytest.mark.parametrize(
    ("batch_size", "world_size", "accumulate", "advice"), [(10, 4, 1, "8 or 12"), (10, 2, 2, "8 or 12"), (1, 2, 1, "2")]
)
def test_a_batch_that_cannot_be_divided_is_refused_with_advice(
    batch_size: int, world_size: int, accumulate: int, advice: str
) -> None:
    with pytest.raises(UserError, match=f"batch_size={batch_size} .* such as {advice}\\."):
        keys(9, batch_size, steps=1, world_size=world_size, accumulate=accumulate)


@pytest.mark.parametrize("num_images", [0, 1, 5, 8])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_exactly_once(num_images: int, world_size: int) -> None:
    samplers = [EvalSampler(num_images, rank=rank, world_size=world_size) for rank in range(world_size)]
    found = [key for sampler in samplers for key in sampler]
    assert sorted(found) == [(0, index) for index in range(num_images)]
    assert sum(len(sampler) for sampler in samplers) == num_images


@pytest.mark.parametrize("batch_size", [6, 8])
def test_repeated_images_come_in_a_row_under_different_keys(batch_size: int) -> None:
    plain = keys(10, batch_size, steps=15)
    repeated = keys(10, batch_size, steps=15, repeats=3)
    assert len(set(repeated)) == len(repeated)
    assert [index for _, index in repeated[::3]] == [index for _, index in plain[: len(repeated[::3])]]
    for start in range(0, len(repeated) - 2, 3):
        assert len({index for _, index in repeated[start : start + 3]}) == 1
    assert Counter(index for _, index in repeated[:30]) == dict.fromkeys(range(10), 3)  # a pass has 30 positions


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_repeated_images_exactly(world_size: int) -> None:
    whole = keys(10, 6, steps=4, repeats=3)
    parts = [keys(10, 6, steps=4, repeats=3, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(key for part in parts for key in part) == sorted(whole)
    assert keys(10, 6, steps=2, start=2, repeats=3) == whole[12:]
