"""Lloyd's algorithm for spherical k-means: the same iteration on a CPU and on a GPU.

M points, d numbers each, V words.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SCORES_ON_CPU = 2**19
"""Products of points and words that are held at a time per thread of a CPU, so that they stay in its cache."""

LEAST_ROWS_ON_CPU = 256
"""Fewest points compared at a time, as the words are converted each time."""

SCORES_ON_GPU = 2**28
"""Products of points and words that are held at a time on a GPU."""

START_PER_WORD = 8
"""Points per word among which k-means++ chooses: all of them would take many passes over the points."""

ENOUGH_PER_WORD = 39
"""Least points per word of an iteration that leaves points out, as faiss advises."""


class Search(Protocol):
    """Finds the most similar word of each point."""

    def use(self, words: Tensor) -> None:
        """Sets the words to search, (V, d) float32."""

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Similarity (n,) float32 and index (n,) int64 of the most similar word of each point (n, d) float32."""


@contextmanager
def fast_products() -> Iterator[None]:
    """Lets torch multiply float32 matrices with bfloat16 (CPUs that have it) or TF32 (GPUs) inputs, and add in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class TorchSearch:
    """The most similar word of each point by a matrix product, on the device of the words."""

    def __init__(self) -> None:
        self._columns = torch.empty(0)
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def use(self, words: Tensor) -> None:
        """Sets the words to search, (V, d) float32."""
        self._columns = words.t().contiguous()

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Similarity (n,) float32 and index (n,) int64 of the most similar word of each point (n, d) float32."""
        with fast_products():
            scores = points.to(self._columns.device) @ self._columns
        if scores.device.type != "cpu":
            similarity, nearest = scores.max(dim=1)
            return similarity, nearest
        nearest = torch.from_numpy(self._argmax(scores.numpy()))  # three times as fast as torch's
        return scores.gather(1, nearest[:, None])[:, 0], nearest

    def _argmax(self, scores: np.ndarray) -> np.ndarray:
        """The column of the largest value of each row, on as many threads as torch uses."""
        parts = np.array_split(scores, torch.get_num_threads())
        if len(parts) == 1:
            return scores.argmax(axis=1)
        return np.concatenate(list(self._threads.map(lambda part: part.argmax(axis=1), parts)))


def spread_start(points: Tensor, num_words: int, generator: np.random.Generator) -> Tensor:
    """Chooses initial words among the points by k-means++: with probabilities proportional to the squared distances.

    Args:
        points: Unit vectors, (n, d) float32 on any device, n ≥ V.
        num_words: V.
        generator: Source of randomness.

    Returns:
        (V, d) float32, on the same device.
    """
    chances = torch.from_numpy(generator.random(num_words)).to(points.device)
    chosen = torch.zeros(num_words, dtype=torch.int64, device=points.device)
    nearest = torch.ones(
        len(points), device=points.device
    )  # 1 - cosine, half of the squared distance; at first unknown
    for number in range(num_words):
        cumulated = nearest.double().cumsum(0)
        place = torch.searchsorted(cumulated, chances[number] * cumulated[-1], right=True).clamp(max=len(points) - 1)
        chosen[number] = place
        distance = (1 - points @ points[place]).clamp(min=0)
        nearest = distance if number == 0 else torch.minimum(nearest, distance)
        nearest[place] = 0
    return points[chosen]


def strides(num_points: int, num_words: int, iterations: int) -> list[int]:
    """Which points each iteration uses: every fourth, then every second, then all, as far as there are enough per word.

    The first iterations move the words far and need no precision; the last ones use all the points.
    """
    coarse, middle = iterations * 2 // 5, iterations * 7 // 20
    plan = [4] * coarse + [2] * middle + [1] * (iterations - coarse - middle)
    most = max(1, num_points // (ENOUGH_PER_WORD * num_words))
    return [stride if stride <= most else (2 if most >= 2 and stride > 2 else 1) for stride in plan]


def lloyd(points: Tensor, words: Tensor, plan: Iterable[int], search: Search) -> Tensor:
    """Moves each word to the normalised mean of the points that are most similar to it, again and again.

    Args:
        points: Unit vectors, (M, d) float32, on any device.
        words: Initial words of unit length, (V, d) float32, on the device that is to compute.
        plan: The stride of the points of each iteration. Iterations that change nothing more are left out.
        search: Finds the most similar words.

    Returns:
        Words of unit length, (V, d) float32, on the same device.
    """
    settled = 0  # the stride at which nothing changes any more
    for stride in plan:
        if stride != settled:
            before, words = words, _iteration(points[::stride], words, search)
            settled = stride if torch.allclose(before, words, rtol=0, atol=1e-7) else 0
    return words


def _iteration(points: Tensor, words: Tensor, search: Search) -> Tensor:
    """One iteration over all of ``points``; words without a point become the points that are farthest from their word."""
    search.use(words)
    sums, sizes = torch.zeros_like(words), torch.zeros(len(words), device=words.device)
    similarities = []
    for rows in points.split(_rows_at_a_time(words)):
        similarity, nearest = search(rows)  # faiss wants them on the CPU
        nearest = nearest.to(words.device)
        add_rows(sums, nearest, rows.to(words.device))
        sizes += torch.bincount(nearest, minlength=len(words))
        similarities.append(similarity)
    empty = sizes.eq(0).nonzero()[:, 0]
    if len(empty):
        farthest = torch.cat(similarities).argsort(stable=True)[: len(empty)]
        sums[empty] = points[farthest.to(points.device)].to(words.device)
    lengths = sums.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, F.normalize(sums, dim=1), words)  # opposite points may cancel


def _rows_at_a_time(words: Tensor) -> int:
    if words.device.type != "cpu":
        return max(1, SCORES_ON_GPU // len(words))
    return max(LEAST_ROWS_ON_CPU, SCORES_ON_CPU // len(words)) * torch.get_num_threads()


def add_rows(sums: Tensor, index: Tensor, rows: Tensor) -> None:
    """Adds each row (n, d) to the row of ``sums`` (V, d) that ``index`` (n,) names, in float32 and in a fixed order."""
    if sums.device.type == "cpu":
        sums.index_add_(0, index, rows)
    else:
        sums.index_put_((index,), rows, accumulate=True)  # sorts; index_add_ would add in any order on a GPU
