"""Lloyd's iteration in torch: against a slow reference, words without points, the points that are left out at first."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.tokenizers import kmeans
from lit_splitmask.tokenizers.kmeans import spherical_kmeans
from lit_splitmask.tokenizers.lloyd import TorchSearch, add_rows, fast_products, lloyd, spread_start, strides


def unit_vectors(number: int, dim: int = 16, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(number, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def inertia(points: Tensor, words: Tensor) -> float:
    return float((1 - (points.double() @ words.double().t()).max(dim=1).values).mean())


def in_loops(points: Tensor, words: Tensor, iterations: int) -> Tensor:
    """Lloyd's algorithm in float64, point by point."""
    words = words.double()
    for _ in range(iterations):
        sums = torch.zeros_like(words)
        for point in points.double():
            sums[int((words @ point).argmax())] += point
        words = F.normalize(sums, dim=1)
    return words.float()


class Exact(TorchSearch):
    """The search without the fast products, whose rounding may move a point between two words that are equally similar."""

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        similarity, nearest = (points @ self._columns).max(dim=1)
        return similarity, nearest


def test_iterations_equal_a_slow_reference() -> None:
    points = unit_vectors(300)
    found = lloyd(points, points[:12], [1, 1, 1], Exact())
    torch.testing.assert_close(found, in_loops(points, points[:12], 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_search_finds_the_most_similar_word_up_to_the_rounding_of_bfloat16(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        points, words, search = unit_vectors(1000), unit_vectors(40, seed=1), TorchSearch()
        search.use(words)
        similarity, nearest = search(points)
    finally:
        torch.set_num_threads(before)
    exact = points @ words.t()
    assert nearest.dtype == torch.int64
    torch.testing.assert_close(similarity, exact.gather(1, nearest[:, None])[:, 0], rtol=0, atol=0.01)
    assert (exact.max(dim=1).values - exact.gather(1, nearest[:, None])[:, 0]).max() < 0.01
    assert (nearest == exact.argmax(dim=1)).float().mean() > 0.97


def test_fast_products_do_not_outlive_their_block() -> None:
    before = torch.get_float32_matmul_precision()
    with fast_products():
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


def test_the_fast_products_cost_no_more_than_a_thousandth_of_the_inertia() -> None:
    points = unit_vectors(4000, 8)
    start = spread_start(points, 24, np.random.default_rng(0))
    fast, exact = (inertia(points, lloyd(points, start, [1] * 15, search)) for search in (TorchSearch(), Exact()))
    assert fast <= exact * 1.005  # 15 iterations end in different optima; at this size they differ by some thousandths


def test_a_word_without_points_becomes_the_point_farthest_from_its_word() -> None:
    points = unit_vectors(51)
    points[:50, 0] = 3  # all but the last point towards the first axis
    points = F.normalize(points, dim=1)
    first = torch.eye(16)[0]
    words = torch.stack([first, -first, -first])  # the third equals the second and wins no point
    found = lloyd(points, words, [1], Exact())
    farthest = int((points @ words.t()).max(dim=1).values.argmin())
    torch.testing.assert_close(found[2], points[farthest])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_sums_are_those_of_a_loop_also_by_the_way_of_gpus() -> None:
    rows, index = unit_vectors(100), torch.arange(100) % 7
    expected = torch.stack([rows[index == word].sum(dim=0) for word in range(7)])
    by_cpu, by_gpu = torch.zeros(7, 16), torch.zeros(7, 16)
    add_rows(by_cpu, index, rows)
    by_gpu.index_put_((index,), rows, accumulate=True)
    torch.testing.assert_close(by_cpu, expected)
    torch.testing.assert_close(by_gpu, expected)


@pytest.mark.parametrize(
    ("points", "expected"),
    [(100_000, [4] * 10 + [2] * 8 + [1] * 7), (8_000, [2] * 18 + [1] * 7), (5_000, [1] * 25)],
)
def test_the_first_iterations_leave_out_points_only_where_enough_remain(points: int, expected: list[int]) -> None:
    assert strides(points, 100, 25) == expected
    assert strides(points, 100, 1) == [1]


def test_the_last_iterations_use_all_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Counts(TorchSearch):
        def use(self, words: Tensor) -> None:
            seen.append(0)
            super().use(words)

        def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
            seen[-1] += len(points)
            return super().__call__(points)

    monkeypatch.setattr(kmeans, "TorchSearch", Counts)
    spherical_kmeans(unit_vectors(3001).numpy(), 10, 10, seed=0)
    assert seen == [751] * 4 + [1501] * 3 + [3001] * 3


def test_iterations_that_change_nothing_are_left_out() -> None:
    calls: list[int] = []

    class Counts(Exact):
        def use(self, words: Tensor) -> None:
            calls.append(1)
            super().use(words)

    points = torch.eye(4).repeat_interleave(10, dim=0)
    lloyd(points, torch.eye(4), [2, 2, 2, 1, 1, 1], Counts())
    assert len(calls) == 2  # one for each set of points


def test_the_spread_start_is_points_far_apart_and_follows_the_generator() -> None:
    directions = torch.eye(16)
    points = F.normalize(directions.repeat_interleave(50, dim=0) + 0.02 * torch.randn(800, 16), dim=1)
    start, again, other = (spread_start(points, 16, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (start @ directions.t()).argmax(dim=1).unique().numel() == 16  # sixteen random points have about ten
    assert torch.equal(start, again)
    assert not torch.equal(start, other)
    assert (torch.cdist(start, points).min(dim=1).values < 1e-3).all()


def test_points_that_are_all_equal_give_words_of_unit_length() -> None:
    points = F.normalize(torch.ones(50, 16), dim=1)
    found = torch.from_numpy(spherical_kmeans(points.numpy(), 5, 4, seed=0))
    torch.testing.assert_close(found, points[:5])


def test_on_a_gpu_faiss_searches_if_its_probe_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Fake(Exact):
        def __init__(self, dimensions: int) -> None:
            made.append(dimensions)
            super().__init__()

    class Device:
        type = "cuda"

    monkeypatch.setattr(kmeans, "FaissSearch", Fake)
    monkeypatch.setattr(kmeans, "faiss_gpu_works", lambda: True)
    assert isinstance(kmeans.search_on(Device(), 16), Fake)  # type: ignore[arg-type]
    monkeypatch.setattr(kmeans, "faiss_gpu_works", lambda: False)
    chosen: Any = kmeans.search_on(Device(), 16)  # type: ignore[arg-type]
    assert isinstance(chosen, TorchSearch)
    assert made == [16]


@pytest.mark.gpu
def test_the_gpu_finds_words_as_good_as_the_cpu() -> None:
    points = unit_vectors(20_000, 48)
    on_cpu, on_gpu = (
        inertia(points, torch.from_numpy(spherical_kmeans(points.numpy(), 64, 10, 0, device)))
        for device in ("cpu", "cuda")
    )
    assert on_gpu == pytest.approx(on_cpu, rel=0.005)
