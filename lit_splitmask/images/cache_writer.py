"""Writes the pixel cache, during the scan of a folder or after it."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lit_splitmask.errors import UserError
from lit_splitmask.files import open_partial, remove_abandoned, write_atomically
from lit_splitmask.images.cache import FINISHED_MTIME, cache_of, choose_store_size, num_bytes, read_shrunk, shrink
from lit_splitmask.images.decode import DecodeError, has_reduced_sizes, read_shape
from lit_splitmask.images.index import FolderIndex
from lit_splitmask.images.scan import in_threads
from lit_splitmask.images.window import Window, to_rgb

log = logging.getLogger(__name__)

_SYNC_EVERY = 2**26  # bytes
_MAX_SAMPLED = 200  # images whose headers are read to estimate the size of the file


def build(index: FolderIndex, store_size: int, window: Window | None = None) -> None:
    """Builds the cache unless a complete one exists; if the disk is full, warns, and images are decoded each time.

    Raises:
        DecodeError: An image is missing or damaged.
    """
    cache = cache_of(index, store_size, window)
    remove_abandoned(cache.path.parent, "pixels-")
    if cache.is_whole:
        return
    if cache.path.exists():
        log.warning("The pixel cache %s is damaged and will be rebuilt.", cache.path)
    with PartialCache(cache.path.parent, store_size, cache.num_bytes) as partial:
        if partial.is_open:
            for image in _stored_images(index, store_size, window):
                partial.write(image)
            partial.keep(index, window)


def _stored_images(index: FolderIndex, store_size: int, window: Window | None) -> Iterator[np.ndarray]:
    return in_threads(
        lambda file: read_shrunk(index.root / file, index.files[file].shape, store_size, window),
        list(index.files),
        f"Storing {index.root.name}",
    )


class PartialCache:
    """A cache that is being written, under a temporary name.

    If the disk fails or fills up, a warning is logged, the file is removed, and images are decoded each time.

    Args:
        folder: Folder of the cache.
        store_size: See :func:`stored_shape`.
        num_bytes: Estimated size; if it exceeds half of the free space, nothing is written.
    """

    def __init__(self, folder: Path, store_size: int, num_bytes: int) -> None:
        self.store_size = store_size
        self._num_written = 0
        self._pool = ThreadPoolExecutor(1)  # flushes the file to disk while more is being written
        self._synced_to = 0
        self._syncing: Future[None] | None = None
        self._folder = folder
        self._path: Path | None = None
        self._stream: BinaryIO | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder, "pixels-")  # of runs that were killed
            free = shutil.disk_usage(folder).free
            if num_bytes <= free / 2:
                self._path, self._stream = open_partial(folder / f"pixels-{store_size}")
        except OSError as error:
            self._give_up(error)
            return
        if self._stream is None:
            log.warning(
                "The pixel cache would take %.1f GiB, more than half of the %.1f GiB free in %s, so images are decoded each "
                "time, which is slower. Free some space, or lower cache_gb.",
                num_bytes / 2**30,
                free / 2**30,
                folder,
            )

    def __enter__(self) -> "PartialCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether images can still be written."""
        return self._stream is not None

    def write(self, image: np.ndarray) -> None:
        """Writes the next image, (H, W, 3) uint8; does nothing once closed."""
        if self._stream is None:
            return
        try:
            self._num_written += self._stream.write(np.ascontiguousarray(image).data)
            if self._num_written > self._synced_to + _SYNC_EVERY and (self._syncing is None or self._syncing.done()):
                self._wait_for_disk()
                self._synced_to = self._num_written
                self._syncing = self._pool.submit(os.fsync, self._stream.fileno())
        except OSError as error:
            self._give_up(error)

    def keep(self, index: FolderIndex, window: Window | None = None) -> None:
        """Publishes the file under its final name if it holds all images of the folder, and removes outdated caches."""
        cache = cache_of(index, self.store_size, window)
        if self._stream is None or self._path is None or self._num_written != cache.num_bytes:
            return
        about: dict[str, Any] = {"store_size": self.store_size, "record": index.path.name, "images": len(index.files)}
        if window is not None:
            about["window"] = list(window)
        try:
            self._stream.flush()
            self._wait_for_disk()
            os.fsync(self._stream.fileno())
            os.utime(self._path, (FINISHED_MTIME, FINISHED_MTIME))
            os.replace(self._path, cache.path)  # before it is closed: until then no other process removes it
            self._stream.close()
            write_atomically(cache.path.with_suffix(".json"), json.dumps(about).encode())
            _remove_outdated(cache.path, about)
        except (OSError, UserError) as error:
            self._give_up(error)
            return
        log.info(
            "Pixel cache: %s, %.2f GiB, short sides at most %d px.",
            cache.path,
            cache.num_bytes / 2**30,
            self.store_size,
        )

    def close(self) -> None:
        """Removes the file unless :meth:`keep` has published it."""
        self._pool.shutdown()
        if self._stream is not None:
            with suppress(OSError):  # a full disk refuses the rest of the buffer
                self._stream.close()
            self._stream = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _wait_for_disk(self) -> None:
        if self._syncing is not None:
            self._syncing.result()

    def _give_up(self, error: OSError | UserError) -> None:
        log.warning(
            "The pixel cache in %s cannot be written (%s), so images are decoded each time.", self._folder, error
        )
        self.close()


def _remove_outdated(path: Path, about: Mapping[str, Any]) -> None:
    """Removes other caches of the same index, store size and window: of earlier images, or of another version."""
    for other in path.parent.glob(f"pixels-{about['store_size']}-*.json"):
        try:
            known = json.loads(other.read_text(encoding="utf-8"))
            record = known.get("record", "splits")
            same_index = Path(record).stem == Path(about["record"]).stem  # records of earlier versions ended in .json
            # one of another window may be in use by another run
            same_index = same_index and known.get("window") == about.get("window")
        except (ValueError, AttributeError, TypeError):
            continue
        if same_index and other != path.with_suffix(".json"):
            other.with_suffix(".bin").unlink(missing_ok=True)
            other.unlink(missing_ok=True)


class StoreWhileScanning:
    """Stores a folder's images during the scan, so that none is decoded twice.

    The store size is estimated from a sample of the images. If all of them call for another size, the file is discarded.

    Args:
        folder: Folder of the cache.
        image_size, cache_bytes: See :func:`choose_store_size`.
        window: That of images of more than 8 bits; None if it is not known yet, then a folder with such images is not stored.
    """

    def __init__(self, folder: Path, image_size: int, cache_bytes: float, window: Window | None = None) -> None:
        self._folder, self._image_size, self._cache_bytes = folder, image_size, cache_bytes
        self._window = window
        self._partial: PartialCache | None = None

    def __enter__(self) -> "StoreWhileScanning":
        return self

    def __exit__(self, *_: object) -> None:
        if self._partial is not None:
            self._partial.close()

    def start(self, root: Path, files: Sequence[str]) -> None:
        """Estimates the store size and opens the file."""
        step = -(-len(files) // _MAX_SAMPLED)
        shapes = []
        for file in files[::step]:
            with suppress(DecodeError):
                shapes.append(read_shape(root / file))
        store_size = choose_store_size(shapes, self._image_size, self._cache_bytes / step)
        if store_size is not None:
            self._partial = PartialCache(self._folder, store_size, num_bytes(shapes, store_size) * step)

    def shrink(self, path: Path, image: np.ndarray) -> np.ndarray | None:
        """The pixels to store of an image, the same that :func:`read_shrunk` gives; None if nothing is stored."""
        if self._partial is None or not self._partial.is_open:
            return None
        if image.ndim == 2:
            if self._window is None:
                return None  # the file then lacks an image, and is not kept
            image = to_rgb(image, self._window)
        shape, store_size = (image.shape[0], image.shape[1]), self._partial.store_size
        # read_shrunk decodes a JPEG at a reduced size, which gives other pixels; others would be decoded twice for nothing
        if min(shape) >= 2 * store_size and has_reduced_sizes(path):
            return read_shrunk(path, shape, store_size, self._window)
        return shrink(image, shape, store_size)

    def write(self, image: np.ndarray) -> None:
        """Writes the next shrunk image."""
        if self._partial is not None:
            self._partial.write(image)

    def keep(self, index: FolderIndex) -> None:
        """Publishes the file if the estimated store size was right."""
        store_size = choose_store_size(index.files.shapes, self._image_size, self._cache_bytes)
        if self._partial is not None and self._partial.store_size == store_size:
            self._partial.keep(index, self._window)
