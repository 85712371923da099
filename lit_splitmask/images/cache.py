"""Reads the pixel cache: all images of a folder, decoded and shrunk once, in one memory-mapped file."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import decode
from lit_splitmask.images.index import FolderIndex
from lit_splitmask.images.names import Names
from lit_splitmask.images.scan import hash_pixels

# More than four times the crop size gains nothing: there, a crop of 8 % of the area already has the size of the input.
STORE_FACTORS = (4.0, 3.0, 2.0, 1.5, 1.15)

VERSION = 2  # changes with how pixels are decoded, shrunk or laid out
FINISHED_MTIME = 946_684_800  # seconds; modification time of a complete file, so that any later change shows


def stored_shape(shape: tuple[int, int], store_size: int) -> tuple[int, int]:
    """Height and width at which an image is stored: short side at most ``store_size``, never enlarged."""
    short = min(shape)
    if short <= store_size:
        return shape
    height, width = (max(1, round(side * store_size / short)) for side in shape)
    return height, width


def read_shrunk(path: Path, shape: tuple[int, int], store_size: int) -> np.ndarray:
    """Decodes an image at its stored size, antialiased.

    Args:
        path: The image.
        shape: Height and width of the image.
        store_size: See :func:`stored_shape`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DecodeError: The image is missing or damaged.
    """
    return shrink(decode(path, draft_size=store_size), shape, store_size)


def shrink(image: np.ndarray, shape: tuple[int, int], store_size: int) -> np.ndarray:
    """Resizes an image to its stored size.

    Args:
        image: (H, W, 3) uint8, possibly decoded at a reduced size.
        shape: Height and width of the image on disk.
        store_size: See :func:`stored_shape`.

    Returns:
        (h, w, 3) uint8.
    """
    height, width = stored_shape(shape, store_size)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def choose_store_size(shapes: Sequence[tuple[int, int]], image_size: int, cache_bytes: float) -> int | None:
    """Chooses the largest store size whose file fits into ``cache_bytes``; None if none does.

    The choice depends on nothing else: with the same images and settings, two machines train on the same pixels.
    """
    for factor in STORE_FACTORS:
        store_size = round(factor * image_size)
        if num_bytes(shapes, store_size) <= cache_bytes:
            return store_size
    return None


def num_bytes(shapes: Sequence[tuple[int, int]], store_size: int) -> int:
    """Size of the file that stores images of these heights and widths."""
    return sum(height * width * 3 for height, width in (stored_shape(shape, store_size) for shape in shapes))


class PixelCache:
    """The stored pixels of a folder.

    Args:
        path: File of all pixels, one image after the other.
        names: Sorted names of the images.
        shapes: (n, 2) stored heights and widths.
    """

    def __init__(self, path: Path, names: Names, shapes: np.ndarray) -> None:
        self.path = path
        self._names, self._shapes = names, shapes
        self._ends = np.cumsum(shapes.prod(axis=1) * 3)
        self.num_bytes = int(self._ends[-1]) if len(names) else 0
        self._pixels: np.ndarray | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}  # a worker maps the file again instead of receiving a copy

    @property
    def is_whole(self) -> bool:
        """Whether the file has its full length and has not changed since it was written."""
        if not self.path.is_file():
            return False
        status = self.path.stat()
        return status.st_size == self.num_bytes and int(status.st_mtime) == FINISHED_MTIME

    def read(self, file: str) -> np.ndarray:
        """Reads an image: (H, W, 3) uint8, a read-only view of the mapped file."""
        if self._pixels is None:
            self._pixels = np.memmap(self.path, dtype=np.uint8, mode="r")
        index = self._names.index(file)
        height, width = self._shapes[index]
        end = self._ends[index]
        return self._pixels[end - height * width * 3 : end].reshape(height, width, 3)


def cache_of(index: FolderIndex, store_size: int) -> PixelCache:
    """The cache of a folder at a store size; its file need not exist yet."""
    digest = hashlib.blake2b(f"version {VERSION}".encode(), digest_size=6)
    for file, record in index.files.items():
        digest.update(f"{file}\0{record.hash}\n".encode("utf-8", "surrogatepass"))
    shapes = np.array([stored_shape(record.shape, store_size) for record in index.files.values()], dtype=np.int64)
    return PixelCache(index.path.parent / f"pixels-{store_size}-{digest.hexdigest()}.bin", Names(index.files), shapes)


class Reader:
    """Reads a folder's images from the cache, or the same pixels from the files if there is no cache.

    Args:
        index: The folder.
        image_size: Side of the crops to be made, in pixels.
        store_size: From :func:`choose_store_size`; None to read the files at their own size.
    """

    def __init__(self, index: FolderIndex, image_size: int, store_size: int | None) -> None:
        self.root = index.root
        self.names = Names(index.files)
        self.shapes = np.array([record.shape for record in index.files.values()], dtype=np.int32)
        self.store_size = store_size
        self.draft_size = round(STORE_FACTORS[0] * image_size)
        cache = None if store_size is None else cache_of(index, store_size)
        self.cache = cache if cache is not None and cache.is_whole else None
        records = [] if self.cache is not None else list(index.files.values())
        self.times = np.array([(record.size, record.mtime_ns) for record in records], dtype=np.int64).reshape(-1, 2)
        self.hashes = np.array([record.hash for record in records], dtype=np.bytes_)

    def __call__(self, file: str) -> np.ndarray:
        """Reads an image by its path relative to the root: (H, W, 3) uint8.

        Raises:
            DecodeError: The image is missing or damaged.
            UserError: It has been replaced by another one since it was scanned.
        """
        if self.cache is not None:
            return self.cache.read(file)
        self._check_same(file)
        if self.store_size is not None:
            height, width = self.shapes[self.names.index(file)].tolist()
            return read_shrunk(self.root / file, (height, width), self.store_size)
        return decode(self.root / file, self.draft_size)

    def _check_same(self, file: str) -> None:
        """Checks a file that was written since it was scanned: another image may have another class, or be in another split."""
        path, number = self.root / file, self.names.index(file)
        try:
            status = os.stat(path)
        except OSError:
            return  # decoding says why
        size, mtime_ns = self.times[number].tolist()
        if (status.st_size, status.st_mtime_ns) == (size, mtime_ns):
            return
        is_decoded = self.hashes[number] != f"{size}-{mtime_ns}".encode()  # published datasets are not, when scanned
        is_same = hash_pixels(decode(path)).encode() == self.hashes[number] if is_decoded else status.st_size == size
        if not is_same:
            raise UserError(
                f"The image {path} is another one than when the folder was scanned: put the one from before back and resume the "
                "run, or start a new run with the folder as it is now."
            )
