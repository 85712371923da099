"""Near-duplicate images: perceptual hashes, and groups of similar ones. Pure functions."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn

from lit_splitmask.images.split import components

HASH_SIDE = 8
THUMBNAIL_SIDE = 16
_GREY_SIDE = 32

MAX_DISTANCE = 6
"""Largest number of bits, out of 64, in which the hashes of near-duplicates differ."""

MIN_CORRELATION = 0.96
"""Least correlation of near-duplicates' thumbnails; hashes alone also match different objects on the same plain background."""

MIN_CONTRAST = 2.0
"""Standard deviation in grey levels; a thumbnail below it is plain and matches nothing."""

ALL_PAIRS_UP_TO = 50_000
"""With more images than this, only those in the same bucket are compared."""

_MIN_DOT = 64 - 2 * MAX_DISTANCE
_BLOCK_ROWS = 256
_BANDS = 4  # of 16 bits each: hashes that differ in at most 3 bits agree in at least one band
_NEIGHBOURS = 32

Pairs = np.ndarray
"""(m, 2) int64: indices i < j."""


@dataclass(frozen=True)
class Fingerprint:
    """A summary of an image for comparison.

    Attributes:
        hash: 64-bit perceptual hash.
        thumbnail: (16, 16) uint8, greyscale.
    """

    hash: int
    thumbnail: np.ndarray


def fingerprint(image: np.ndarray) -> Fingerprint:
    """The fingerprint of an image (H, W, 3) uint8 of any size."""
    grey = Image.fromarray(image).convert("L").resize((_GREY_SIDE, _GREY_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(grey)
    step = _GREY_SIDE // THUMBNAIL_SIDE
    thumbnail = pixels.reshape(THUMBNAIL_SIDE, step, THUMBNAIL_SIDE, step).mean(axis=(1, 3))
    return Fingerprint(dct_hash(pixels), thumbnail.round().astype(np.uint8))


def dct_hash(grey: np.ndarray) -> int:
    """Hashes an image: one bit for each of the 8 x 8 lowest frequencies of its cosine transform, 1 above their median.

    The median leaves out the constant term, whose bit is 0; imagehash's ``phash`` counts it, and needs a further package.

    Args:
        grey: (n, n) of any type, n at least 8.
    """
    frequencies = dctn(grey.astype(np.float64), norm="ortho")[:HASH_SIDE, :HASH_SIDE].flatten()
    bits = frequencies > np.median(frequencies[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(hashes: np.ndarray, thumbnails: np.ndarray) -> Pairs:
    """Finds pairs of images that look the same: close hashes and correlated thumbnails.

    Up to 50,000 images, every pair is compared. Above that, a hash is compared with the 32 that follow it in the order of
    each of four 16-bit bands, if they agree in the band. Time and memory stay linear, but pairs that differ in more than
    3 bits may be missed.

    Args:
        hashes: (n,) uint64.
        thumbnails: (n, 16, 16) uint8.

    Returns:
        (m, 2) int64, sorted, the smaller index first.
    """
    signs = _signs(hashes)
    unit, has_contrast = _unit_thumbnails(thumbnails)
    candidates = _all_pairs(signs) if len(hashes) <= ALL_PAIRS_UP_TO else bucketed_pairs(hashes)
    found = [np.empty((0, 2), dtype=np.int64)]
    for pairs in candidates:
        pairs = pairs[has_contrast[pairs].all(axis=1)]
        pairs = pairs[_dots(signs, pairs) >= _MIN_DOT]
        found.append(pairs[_dots(unit, pairs) >= MIN_CORRELATION])
    return np.unique(np.concatenate(found), axis=0)


def _dots(vectors: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Dot products of pairs of rows: (m,)."""
    products: np.ndarray = np.einsum("nd,nd->n", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    return products


def _signs(hashes: np.ndarray) -> np.ndarray:
    """The bits as 1 and -1: (n, 64) float32. The dot product of two rows is 64 minus twice the number of differing bits."""
    bits = np.unpackbits(hashes.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1)
    return bits.astype(np.float32) * 2 - 1


def _unit_thumbnails(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails with mean 0 and length 1, (n, 256) float32, and whether each has contrast, (n,) bool."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    has_contrast = length[:, 0] >= MIN_CONTRAST * THUMBNAIL_SIDE
    return flat / np.maximum(length, 1e-6), has_contrast


def _all_pairs(signs: np.ndarray) -> Iterator[Pairs]:
    """All pairs with close hashes, one block of rows at a time."""
    for start in range(0, len(signs), _BLOCK_ROWS):
        close = signs[start : start + _BLOCK_ROWS] @ signs[start:].T >= _MIN_DOT
        first, second = np.nonzero(np.triu(close, k=1))
        yield np.stack([first, second], axis=1) + start


def bucketed_pairs(hashes: np.ndarray) -> Iterator[Pairs]:
    """Pairs that agree in one band of 16 bits, one band and distance at a time; a pair may occur more than once."""
    for band in range(_BANDS):
        rotated = (hashes << np.uint64(16 * band)) | (hashes >> np.uint64((64 - 16 * band) % 64))
        order = np.argsort(rotated, kind="stable")  # the band comes first, so that its buckets are contiguous
        bucket = rotated[order] >> np.uint64(48)
        for distance in range(1, min(_NEIGHBOURS, len(hashes) - 1) + 1):
            same = bucket[distance:] == bucket[:-distance]
            pairs = np.stack([order[:-distance][same], order[distance:][same]], axis=1)
            yield np.sort(pairs, axis=1)


def connected_groups(pairs: Pairs) -> list[list[int]]:
    """Groups of indices that pairs connect, directly or through others; each sorted, and ordered by their first index."""
    if not len(pairs):
        return []
    component = components(pairs, int(pairs.max()) + 1)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in np.unique(pairs).tolist():
        groups[component[index]].append(index)
    return list(groups.values())


def near_groups(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """Groups of near-duplicates, as indices into ``fingerprints``."""
    if not fingerprints:
        return []
    hashes = np.array([entry.hash for entry in fingerprints], dtype=np.uint64)
    return connected_groups(near_pairs(hashes, np.stack([entry.thumbnail for entry in fingerprints])))
