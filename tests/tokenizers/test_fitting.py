"""Patches are sampled uniformly from a stream, and become codebooks of patches or centroids."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers import KMeans, RandomPatches, RandomProjection
from lit_splitmask.tokenizers.kmeans import spherical_kmeans
from lit_splitmask.tokenizers.sampling import sample_patches


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def numbered(num_images: int, size: int = 8) -> Tensor:
    """Images whose pixels encode the index of their image and of their 2×2 patch: (B, 1, size, size)."""
    per_side = size // 2
    patch = torch.arange(per_side**2).reshape(per_side, per_side)
    patch = patch.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)
    return (torch.arange(num_images)[:, None, None, None] * 100 + patch + 1) / 10000


def origins(patches: Tensor, tokenizer: RandomProjection) -> list[tuple[int, int]]:
    """Indices of the image and of the patch in it, for each sampled patch."""
    values = ((patches[:, 0] * tokenizer.std + tokenizer.mean) * 10000).round().long().flatten() - 1
    return [(int(value) // 100, int(value) % 100) for value in values]


def one_channel() -> RandomProjection:
    return RandomProjection(2, 1, vocabulary=4)


@pytest.mark.parametrize(("max_patches", "each"), [(20, 2), (60, 6), (10_000, 16)])
def test_each_image_gives_the_same_number_of_patches_and_none_twice(max_patches: int, each: int) -> None:
    tokenizer = one_channel()
    patches = sample_patches(tokenizer, numbered(10).split(3), 10, max_patches, seed=0)
    drawn = origins(patches, tokenizer)
    assert len(drawn) == len(set(drawn)) == 10 * each
    assert all(sum(image == i for image, _ in drawn) == each for i in range(10))


def test_all_patches_of_an_image_are_equally_likely() -> None:
    tokenizer = one_channel()
    patches = sample_patches(tokenizer, numbered(40).repeat(45, 1, 1, 1).split(300), 1800, 1800, seed=0)
    counts = torch.bincount(torch.tensor([patch for _, patch in origins(patches, tokenizer)]), minlength=16)
    assert counts.sum() == 1800
    assert (counts - 1800 / 16).abs().max() < 5 * (1800 / 16) ** 0.5  # five standard deviations


@pytest.mark.parametrize("max_patches", [1, 7, 25])
def test_there_are_no_more_patches_than_asked_for(max_patches: int) -> None:
    patches = sample_patches(one_channel(), numbered(10).split(4), 10, max_patches, seed=0)
    assert patches.shape == (max_patches, 4)


def test_a_stream_is_read_no_further_than_needed() -> None:
    read = []

    def stream() -> Iterator[Tensor]:
        for i in range(1000):
            read.append(i)
            yield numbered(2)

    sample_patches(one_channel(), stream(), 2000, 5, seed=0)
    assert len(read) == 3  # one patch per image, two images per batch


def test_the_sample_depends_on_the_seed_and_not_on_the_batch_size() -> None:
    tokenizer = one_channel()
    first, again, other = (sample_patches(tokenizer, numbered(10).split(5), 10, 20, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, sample_patches(tokenizer, numbered(10).split(2), 10, 20, seed=0))


def test_an_empty_stream_gives_no_patches() -> None:
    assert sample_patches(one_channel(), [], 1, 5, seed=0).shape == (0, 4)


@pytest.mark.parametrize("vocabulary", [10, 50, 51, 130])
def test_random_patches_are_normalised_patches_of_the_images(vocabulary: int) -> None:
    view = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokenizer = RandomPatches(4, vocabulary=vocabulary)
    assert tokenizer.needs_fitting
    tokenizer.fit(view.split(8), 50, seed=0)
    assert not tokenizer.needs_fitting
    everything = F.normalize(tokenizer.patches(view), dim=-1).flatten(0, 1)  # (200, d), image by image
    distance, index = torch.cdist(tokenizer.codebook, everything).min(dim=1)
    assert distance.max() < 1e-3
    assert len(index.unique()) == vocabulary
    per_image = torch.bincount(index // 4, minlength=50)
    assert per_image.max() <= -(-vocabulary // 50)  # one per image if there are enough
    assert per_image.min() >= vocabulary // 50


def test_random_patches_are_not_constant() -> None:
    view = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    view[:, :, :4] = 0.4  # the upper two of four patches
    tokenizer = RandomPatches(4, vocabulary=20, pixels="centred")
    tokenizer.fit(view.repeat(2, 1, 1, 1).split(8), 40, seed=0)
    torch.testing.assert_close(tokenizer.codebook.norm(dim=1), torch.ones(20))


def test_random_patches_read_no_more_images_than_there_are_words() -> None:
    read = []

    def stream() -> Iterator[Tensor]:
        for number in range(1000):
            read.append(number)
            yield torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(number))

    tokenizer = RandomPatches(4, vocabulary=20)
    tokenizer.fit(stream(), 8000, seed=0)
    assert len(read) == 3
    assert len(tokenizer.codebook.unique(dim=0)) == 20


def test_random_patches_read_on_past_images_without_a_usable_patch() -> None:
    flat, rich = torch.full((8, 3, 8, 8), 0.4), torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokenizer = RandomPatches(4, vocabulary=16, pixels="centred")
    tokenizer.fit([flat, rich, flat, rich.flip(-1), rich], 40, seed=0)
    torch.testing.assert_close(tokenizer.codebook.norm(dim=1), torch.ones(16))


def test_random_patches_take_a_second_patch_only_where_the_first_do_not_suffice() -> None:
    flat, rich = torch.full((30, 3, 8, 8), 0.4), torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokenizer = RandomPatches(4, vocabulary=16, pixels="centred")
    tokenizer.fit([flat, rich], 40, seed=0)
    everything = F.normalize(tokenizer.patches(rich), dim=-1).flatten(0, 1)
    image = torch.cdist(tokenizer.codebook, everything).argmin(dim=1) // 4
    counts = torch.bincount(image, minlength=10)
    assert counts.min() == 1
    assert counts.max() == 2


def test_random_patches_follow_the_seed() -> None:
    books = []
    for seed in (0, 0, 1):
        tokenizer = RandomPatches(4, vocabulary=10)
        tokenizer.fit(torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(7), 30, seed)
        books.append(tokenizer.codebook)
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


@pytest.mark.parametrize("kind", [RandomPatches, KMeans])
def test_too_few_patches_are_refused_with_both_numbers(kind: Any) -> None:
    tokenizer = kind(4, vocabulary=1000, pixels="centred")
    with pytest.raises(UserError, match=r"40 usable.* 1,000.*smaller vocabulary"):
        tokenizer.fit(torch.rand(10, 3, 8, 8).split(4), 10, seed=0)


def planted(num_directions: int, points_each: int, dim: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled unit vectors close to orthogonal directions, and the directions."""
    generator = np.random.default_rng(0)
    directions = np.linalg.qr(generator.standard_normal((dim, dim)))[0][:num_directions].astype(np.float32)
    points = np.repeat(directions, points_each, axis=0)
    points = points + 0.03 * generator.standard_normal(points.shape).astype(np.float32)
    generator.shuffle(points)
    return points / np.linalg.norm(points, axis=1, keepdims=True), directions


def test_kmeans_finds_planted_directions() -> None:
    points, directions = planted(6, 60)
    found = spherical_kmeans(points, 6, iterations=25, seed=1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    # Lloyd's iterations from random points may merge two directions; with a few more words than directions none is lost.
    more = spherical_kmeans(points, 24, iterations=25, seed=1)
    assert (directions @ more.T).max(axis=1).min() > 0.99


def test_a_centroid_is_the_normalised_mean_of_its_points() -> None:
    points, _ = planted(6, 60)
    centroids = spherical_kmeans(points, 8, iterations=50, seed=1)
    nearest = (points @ centroids.T).argmax(axis=1)
    for word in range(8):
        mean = points[nearest == word].mean(axis=0)
        np.testing.assert_allclose(centroids[word], mean / np.linalg.norm(mean), atol=1e-3)


def test_more_iterations_improve_the_similarity() -> None:
    points = np.random.default_rng(0).standard_normal((2000, 12)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    similarity = [
        (points @ spherical_kmeans(points, 16, iterations, seed=0).T).max(axis=1).mean() for iterations in (1, 4, 16)
    ]
    assert similarity[0] < similarity[1] < similarity[2]


def test_the_first_update_averages_all_the_points() -> None:
    points, _ = planted(6, 500)
    start = spherical_kmeans(points, 4, iterations=0, seed=0)
    nearest = (points @ start.T).argmax(axis=1)
    means = np.stack([points[nearest == word].mean(axis=0) for word in range(4)])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(spherical_kmeans(points, 4, iterations=1, seed=0), expected, atol=5e-3)


def test_kmeans_gives_the_same_codebook_for_the_same_seed() -> None:
    books = []
    for seed in (0, 0, 1):
        tokenizer = KMeans(4, vocabulary=12, iterations=5)
        tokenizer.fit(torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(16), 60, seed)
        assert not tokenizer.needs_fitting
        books.append(tokenizer.codebook)
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


def test_kmeans_ignores_constant_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    view = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    view[:, :, :4] = 0.4
    seen = []

    def spy(points: np.ndarray, num_words: int, *_: Any) -> np.ndarray:
        seen.append(points)
        return points[:num_words]

    monkeypatch.setattr("lit_splitmask.tokenizers.kmeans.spherical_kmeans", spy)
    KMeans(4, vocabulary=10, pixels="centred").fit(view.split(8), 30, seed=0)
    assert len(seen[0]) == 60
    np.testing.assert_allclose(np.linalg.norm(seen[0], axis=1), 1, rtol=1e-5)
