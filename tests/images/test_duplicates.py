"""Perceptual hashes and groups of near-duplicates, compared with slow reference implementations."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lit_splitmask.images import duplicates
from lit_splitmask.images.duplicates import (
    MAX_DISTANCE,
    MIN_CONTRAST,
    MIN_CORRELATION,
    Fingerprint,
    bucketed_pairs,
    connected_groups,
    dct_hash,
    fingerprint,
    near_groups,
    near_pairs,
)


def photo(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Smooth noise, as varied as a photo at low frequencies: (H, W, 3) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def bits_apart(first: int, second: int) -> int:
    return (int(first) ^ int(second)).bit_count()


def slow_near_pairs(hashes: np.ndarray, thumbnails: np.ndarray) -> list[list[int]]:
    """Compares every pair."""
    pairs = []
    for i in range(len(hashes)):
        for j in range(i + 1, len(hashes)):
            a, b = (thumbnails[k].astype(float).flatten() for k in (i, j))
            if bits_apart(hashes[i], hashes[j]) > MAX_DISTANCE or min(a.std(), b.std()) < MIN_CONTRAST:
                continue
            if np.corrcoef(a, b)[0, 1] >= MIN_CORRELATION:
                pairs.append([i, j])
    return pairs


def planted(count: int, most_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Random hashes and thumbnails; half of them copy others, with up to ``most_bits`` bits flipped and with added noise."""
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, count, dtype=np.uint64)
    thumbnails = generator.integers(0, 256, (count, 16, 16), dtype=np.uint8)
    for index in range(count // 2, count):
        other = int(generator.integers(count // 2))
        flipped = generator.choice(64, generator.integers(most_bits + 1), replace=False)
        hashes[index] = hashes[other] ^ np.uint64(sum(1 << int(bit) for bit in flipped))
        noise = generator.normal(0, generator.choice([5, 15, 25, 60]), (16, 16))
        thumbnails[index] = (thumbnails[other] + noise).clip(0, 255).astype(np.uint8)
    return hashes, thumbnails


@pytest.mark.parametrize("seed", range(4))
def test_the_hash_is_the_sign_of_the_lowest_frequencies(seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    cosines = np.cos(np.pi / 32 * np.outer(np.arange(8), np.arange(32) + 0.5))  # DCT-II, but for positive factors
    cosines[0] /= np.sqrt(2)
    frequencies = (cosines @ grey @ cosines.T).flatten()
    middle = sorted(frequencies[1:])[31]
    expected = "".join("1" if number > 0 and value > middle else "0" for number, value in enumerate(frequencies))
    assert f"{dct_hash(grey):064b}" == expected


def test_brightness_does_not_change_the_hash() -> None:
    grey = np.random.default_rng(0).integers(0, 200, (32, 32))
    assert dct_hash(grey) == dct_hash(grey + 50)


def test_compressed_shrunk_and_brighter_copies_are_near_duplicates() -> None:
    for seed in range(20):
        image = photo(seed)
        small = np.asarray(Image.fromarray(image).resize((60, 45), Image.Resampling.LANCZOS))
        brighter = np.asarray(ImageEnhance.Brightness(Image.fromarray(image // 2)).enhance(1.5))
        copies = [image, as_jpeg(image, 60), small, brighter]
        assert near_groups([fingerprint(copy) for copy in copies]) == [[0, 1, 2, 3]]


def test_different_images_are_no_near_duplicates() -> None:
    assert near_groups([fingerprint(photo(seed)) for seed in range(300)]) == []


def test_different_objects_on_the_same_background_are_no_near_duplicates() -> None:
    prints = []
    for number in range(6):
        image = np.full((96, 96, 3), 240, dtype=np.uint8)
        top, left = 8 + 12 * number, 70 - 10 * number
        image[top : top + 14, left : left + 18] = (40, 90, 160)
        prints.append(fingerprint(image))
    assert near_groups(prints) == []


def test_plain_images_match_nothing() -> None:
    generator = np.random.default_rng(0)
    plain = [np.full((50, 50, 3), level, dtype=np.uint8) for level in (0, 90, 90, 255)]
    plain += [(120 + generator.integers(0, 3, (50, 50, 3))).astype(np.uint8) for _ in range(3)]
    assert near_groups([fingerprint(image) for image in plain]) == []


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_make_no_group(count: int) -> None:
    assert near_groups([fingerprint(photo(seed)) for seed in range(count)]) == []


def test_all_near_pairs_are_found() -> None:
    hashes, thumbnails = planted(700, most_bits=10)
    expected = slow_near_pairs(hashes, thumbnails)
    assert 50 < len(expected) < 350
    assert near_pairs(hashes, thumbnails).tolist() == expected


def test_the_hash_alone_and_the_thumbnail_alone_are_not_enough() -> None:
    hashes, thumbnails = planted(400, most_bits=0)
    generator = np.random.default_rng(1)
    other_hashes = generator.integers(0, 2**64, len(hashes), dtype=np.uint64)
    other_thumbnails = generator.integers(0, 256, thumbnails.shape, dtype=np.uint8)
    assert len(near_pairs(hashes, thumbnails)) > 50
    assert len(near_pairs(hashes, other_thumbnails)) == 0
    assert len(near_pairs(other_hashes, thumbnails)) == 0


def test_in_large_sets_all_pairs_up_to_three_bits_apart_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, thumbnails = planted(700, most_bits=5)
    expected = [pair for pair in slow_near_pairs(hashes, thumbnails) if bits_apart(*hashes[pair]) <= 3]
    assert len(expected) > 50
    monkeypatch.setattr(duplicates, "ALL_PAIRS_UP_TO", 0)
    found = near_pairs(hashes, thumbnails).tolist()
    assert [pair for pair in expected if pair not in found] == []


def test_in_large_sets_only_near_pairs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, thumbnails = planted(500, most_bits=12)
    expected = slow_near_pairs(hashes, thumbnails)
    monkeypatch.setattr(duplicates, "ALL_PAIRS_UP_TO", 0)
    found = near_pairs(hashes, thumbnails).tolist()
    assert found
    assert all(pair in expected for pair in found)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_images_can_be_compared_in_buckets(count: int) -> None:
    hashes = np.full(count, 7, dtype=np.uint64)
    pairs = {tuple(pair) for block in bucketed_pairs(hashes) for pair in block.tolist()}
    assert pairs == {(i, j) for i in range(count) for j in range(i + 1, count)}


def test_a_bucket_that_holds_everything_takes_linear_work() -> None:
    hashes = np.zeros(5_000, dtype=np.uint64)
    assert sum(len(pairs) for pairs in bucketed_pairs(hashes)) <= 4 * 32 * len(hashes)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_connected_components(seed: int) -> None:
    pairs = np.sort(np.random.default_rng(seed).integers(0, 60, (35, 2)), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    expected: list[set[int]] = []
    for pair in pairs.tolist():
        touched = [group for group in expected if group & set(pair)]
        expected = [group for group in expected if group not in touched] + [set(pair).union(*touched)]
    assert connected_groups(pairs) == sorted(sorted(group) for group in expected)


def test_a_thumbnail_is_the_image_in_16_by_16_means() -> None:
    image = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 4, 0), 4, 1)
    summary: Fingerprint = fingerprint(np.stack([image] * 3, axis=2))
    assert np.array_equal(summary.thumbnail, np.arange(256).reshape(16, 16))
    assert summary.thumbnail.dtype == np.uint8
