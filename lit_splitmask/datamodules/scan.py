"""Reads every image of a folder once: is it whole, how large is it, which others is it identical to."""

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from lit_splitmask.datamodules.decode import DecodeError, decode
from lit_splitmask.errors import UserError

log = logging.getLogger(__name__)

PROGRESS_FROM = 1_000  # fewer images are read before a progress bar would be of use
_CHUNK = 512  # images handed to the threads at once, so that a large folder does not fill the memory with tasks

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FileRecord:
    """What is known about an image file.

    Args:
        size, mtime_ns: By which a change is noticed.
        hash: Of the decoded pixels; empty if they cannot be decoded.
        shape: Height and width; (0, 0) if it cannot be decoded.
    """

    size: int
    mtime_ns: int
    hash: str
    shape: tuple[int, int]


def hash_pixels(image: np.ndarray) -> str:
    """The same for the same pixels, however they are stored: 32 hexadecimal digits."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def scan(root: Path, files: Sequence[str], max_bad_share: float) -> dict[str, FileRecord]:
    """Decodes every image once.

    A file that cannot be decoded is reported by name and gets an empty hash.

    Raises:
        UserError: More than ``max_bad_share`` of the files cannot be decoded, or all of them.
    """
    records = {}
    unreadable = []
    outcomes = in_threads(lambda file: examine(root / file), files, f"Reading {root.name}")
    for file, (record, trouble) in zip(files, outcomes, strict=True):
        records[file] = record
        if trouble is not None:
            unreadable.append(file)
            log.warning("%s It is left out.", trouble)
    if len(unreadable) > max_bad_share * len(files) or len(unreadable) == len(files):
        shown = ", ".join(unreadable[:5]) + (", …" if len(unreadable) > 5 else "")
        raise UserError(
            f"{len(unreadable)} of the {len(files)} images in {root} cannot be decoded, more than "
            f"max_bad_share={max_bad_share} allows: {shown}. Replace or remove them, or raise max_bad_share."
        )
    return records


def examine(path: Path) -> tuple[FileRecord, DecodeError | None]:
    """Decodes one file: its record, and the trouble if that fails."""
    try:
        status = os.stat(path)
    except OSError as error:  # a link that leads nowhere
        return FileRecord(0, 0, "", (0, 0)), DecodeError(f"The image {path} cannot be opened ({error.strerror}).")
    try:
        image = decode(path)
    except DecodeError as error:
        return FileRecord(status.st_size, status.st_mtime_ns, "", (0, 0)), error
    height, width = image.shape[:2]
    return FileRecord(status.st_size, status.st_mtime_ns, hash_pixels(image), (height, width)), None


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """Maps in a thread pool, in order, with a progress bar on the terminal if it is long."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
        results = _in_chunks(pool, function, items)
        if len(items) >= PROGRESS_FROM and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import track

            yield from track(results, title, total=len(items), console=Console(stderr=True), transient=True)
        else:
            yield from results


def _in_chunks(pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield from pool.map(function, chunk)
