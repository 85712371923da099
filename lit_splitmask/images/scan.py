"""Decodes every image of a folder once: whether it is intact, its size, and a hash of its pixels."""

import hashlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from zlib_ng import zlib_ng

from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import DecodeError, read_pixels
from lit_splitmask.images.in_flight import bounded, num_cores
from lit_splitmask.images.window import DEEP, has_gaps

log = logging.getLogger(__name__)

FEW_BAD = 3  # unreadable files that are left out whatever their share
PROGRESS_FROM = 1_000  # images; fewer are read too quickly for a progress bar
_MAX_PENDING = 64  # images in progress or waiting for earlier ones, to limit memory
_MOST_AT_ONCE = 8  # small images that a thread takes at a time: handing over one costs a twentieth of its decoding

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FileRecord:
    """The record of one image file.

    Args:
        size, mtime_ns: Size in bytes and modification time in nanoseconds, to detect changes.
        hash: Hash of the decoded pixels, with :data:`DEEP` in front if they have more than 8 bits; empty if the file cannot be
            decoded.
        shape: Height and width; (0, 0) if the file cannot be decoded.
    """

    size: int
    mtime_ns: int
    hash: str
    shape: tuple[int, int]


class Storing(Protocol):
    """Stores images while they are scanned, so that none is decoded twice."""

    def start(self, root: Path, files: Sequence[str]) -> None:
        """Called before the first image."""

    def shrink(self, path: Path, image: np.ndarray) -> np.ndarray | None:
        """The pixels to store of an image as it is read by :func:`read_pixels`; called in threads."""

    def write(self, image: np.ndarray) -> None:
        """Writes the next shrunk image; called in order."""


def hash_pixels(image: np.ndarray) -> str:
    """Hashes pixels, whatever the file format: 32 hexadecimal digits.

    A checksum of all pixels and a hash of every eighth row: much faster than a hash of all rows. Two images that differ only in
    the other rows collide with a probability of 1 in 4 billion. Values of more than 8 bits count as they are, so that images that
    differ in brightness alone differ.

    Args:
        image: (H, W, 3) uint8, or (H, W) of another type; see :func:`read_pixels`.
    """
    if image.ndim == 2:
        values = image.astype("<f4", copy=False)
        return DEEP + hash_pixels(values[..., None])
    checksum = zlib_ng.crc32(np.ascontiguousarray(image).data)
    digest = hashlib.blake2b(f"{image.shape} {checksum}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image[::8]).data)
    return digest.hexdigest()


def scan(
    root: Path, files: Sequence[str], max_bad_share: float, storing: Storing | None = None
) -> dict[str, FileRecord]:
    """Decodes every image once.

    A file that cannot be decoded is named in a warning and gets an empty hash.

    Args:
        root: Folder that the paths are relative to.
        files: The images.
        max_bad_share: Largest share of the files that may be unreadable; up to three files may be in any case, but not more than
            half.
        storing: Receives the readable images, in order.

    Returns:
        The record of each file.

    Raises:
        UserError: More files than that cannot be read, or none can.
    """
    records = {}
    unreadable = []
    why = ""
    if storing is not None:
        storing.start(root, files)
    shrink = None if storing is None else storing.shrink
    outcomes = in_threads(lambda file: _examine(root / file, shrink), files, f"Reading {root.name}")
    for file, (record, error, shrunk) in zip(files, outcomes, strict=True):
        records[file] = record
        if storing is not None and shrunk is not None:
            storing.write(shrunk)
        if error is not None:
            unreadable.append(file)
            why = why or error.why
            log.warning("%s It is left out.", error)
    if len(unreadable) == len(files):
        raise UserError(
            f"None of the {len(files)} images in {root} can be read: {unreadable[0]} ({why}). Replace them with readable copies."
        )
    if len(unreadable) > max(max_bad_share * len(files), min(FEW_BAD, len(files) // 2)):
        shown = ", ".join(unreadable[:5]) + (", …" if len(unreadable) > 5 else "")
        raise UserError(
            f"{len(unreadable)} of the {len(files)} images in {root} cannot be read, more than max_bad_share={max_bad_share} "
            f"allows: {shown}. The first one: {why}. Replace or remove them, or pass --data.splits.max_bad_share with a higher "
            "share."
        )
    return records


def examine(path: Path) -> tuple[FileRecord, DecodeError | None]:
    """Decodes one file; returns its record, and the error if that failed."""
    return _examine(path, None)[:2]


def _examine(
    path: Path, shrink: Callable[[Path, np.ndarray], np.ndarray | None] | None
) -> tuple[FileRecord, DecodeError | None, np.ndarray | None]:
    """Decodes one file; returns its record, the error if that failed, and the pixels to store."""
    try:
        status = os.stat(path)
        size, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:  # such as a link to nothing, on which decoding fails
        size = mtime_ns = 0
    try:
        image = read_pixels(path)
    except DecodeError as error:
        return FileRecord(size, mtime_ns, "", (0, 0)), error, None
    if image.ndim == 2 and has_gaps(image):
        _say_gaps(path.parent)
    height, width = image.shape[:2]
    record = FileRecord(size, mtime_ns, hash_pixels(image), (height, width))
    return record, None, None if shrink is None else shrink(path, image)


@cache
def _say_gaps(folder: Path) -> None:
    """Says once how values that are not finite are read."""
    log.warning(
        "Images in %s have pixels that are NaN or infinite: NaN and minus infinity become black, infinity white.",
        folder,
    )


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """Maps a function in a thread pool, in order. What the threads decode at the same time is bounded.

    With 1,000 items or more, shows a progress bar on a terminal.
    """
    with ThreadPoolExecutor(num_cores()) as pool:
        results = _in_order(
            pool, bounded(function), items, max(1, min(_MOST_AT_ONCE, len(items) // (16 * num_cores())))
        )
        if len(items) >= PROGRESS_FROM and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import track

            yield from track(results, title, total=len(items), console=Console(stderr=True), transient=True)
        else:
            yield from results


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], at_once: int
) -> Iterator[Result]:
    pending: deque[Future[list[Result]]] = deque()
    for start in range(0, len(items), at_once):
        pending.append(pool.submit(lambda some: [function(item) for item in some], items[start : start + at_once]))
        if len(pending) > _MAX_PENDING // at_once:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()
