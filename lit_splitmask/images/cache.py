"""Reads the pixel cache: all images of a folder, decoded and shrunk once, in one memory-mapped file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lit_splitmask.images.decode import decode, read_pixels
from lit_splitmask.images.index import PIXELS_VERSION, FolderIndex
from lit_splitmask.images.names import Names
from lit_splitmask.images.replaced import check_same
from lit_splitmask.images.scan import hash_pixels
from lit_splitmask.images.window import Window, show

# More than four times the crop size gains nothing: there, a crop of 8 % of the area already has the size of the input.
STORE_FACTORS = (4.0, 3.0, 2.0, 1.5, 1.15)

VERSION = PIXELS_VERSION
Shapes = Sequence[tuple[int, int]] | np.ndarray
"""Heights and widths."""

FINISHED_MTIME = 946_684_800  # seconds; modification time of a complete file, so that any later change shows


def stored_shape(shape: tuple[int, int], store_size: int) -> tuple[int, int]:
    """Height and width at which an image is stored: short side at most ``store_size``, never enlarged."""
    short = min(shape)
    if short <= store_size:
        return shape
    height, width = (max(1, round(side * store_size / short)) for side in shape)
    return height, width


def stored_shapes(shapes: np.ndarray, store_size: int) -> np.ndarray:
    """:func:`stored_shape` of many images: (n, 2) integers -> (n, 2) int32."""
    heights, widths = shapes[:, 0].astype(np.float64), shapes[:, 1].astype(np.float64)
    short = np.minimum(heights, widths)
    stored = np.empty(shapes.shape, dtype=np.int32)
    for column, sides in enumerate((heights, widths)):  # rint rounds halves as Python does
        stored[:, column] = np.where(short <= store_size, sides, np.rint(sides * store_size / short).clip(1))
    return stored


def read_shrunk(path: Path, shape: tuple[int, int], store_size: int, window: Window | None = None) -> np.ndarray:
    """Decodes an image at its stored size, antialiased.

    Args:
        path: The image.
        shape: Height and width of the image.
        store_size: See :func:`stored_shape`.
        window: See :func:`decode`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DecodeError: The image is missing or damaged.
    """
    return shrink(decode(path, store_size, window=window), shape, store_size)


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


def choose_store_size(shapes: Shapes, image_size: int, cache_bytes: float) -> int | None:
    """Chooses the largest store size whose file fits into ``cache_bytes``; None if none does.

    The choice depends on nothing else: with the same images and settings, two machines train on the same pixels.
    """
    distinct, counts = _distinct(shapes)
    for factor in STORE_FACTORS:
        store_size = round(factor * image_size)
        if _num_bytes(distinct, counts, store_size) <= cache_bytes:
            return store_size
    return None


def num_bytes(shapes: Shapes, store_size: int) -> int:
    """Size of the file that stores images of these heights and widths."""
    return _num_bytes(*_distinct(shapes), store_size)


def _distinct(shapes: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """The distinct shapes, (m, 2) int64, and how often each occurs: images share few."""
    pairs = np.asarray(shapes, dtype=np.int64).reshape(-1, 2)
    packed, counts = np.unique(pairs[:, 0] << 32 | pairs[:, 1], return_counts=True)
    return np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=1), counts


def _num_bytes(distinct: np.ndarray, counts: np.ndarray, store_size: int) -> int:
    heights, widths = stored_shapes(distinct, store_size).astype(np.int64).T
    return int((heights * widths * counts).sum()) * 3


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
        self._ends = np.cumsum(shapes[:, 0].astype(np.int64) * shapes[:, 1] * 3)
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

    def read(self, image: str | int) -> np.ndarray:
        """Reads an image by its name or number: (H, W, 3) uint8, a read-only view of the mapped file."""
        if self._pixels is None:
            self._pixels = np.asarray(np.memmap(self.path, dtype=np.uint8, mode="r"))  # slices of a memmap are slow
        index = image if isinstance(image, int) else self._names.index(image)
        height, width = self._shapes[index].tolist()
        end = int(self._ends[index])
        return self._pixels[end - height * width * 3 : end].reshape(height, width, 3)


def cache_of(index: FolderIndex, store_size: int, window: Window | None = None) -> PixelCache:
    """The cache of a folder at a store size, with a window; its file need not exist yet."""
    seen = "" if window is None else f"-{show(window)}"
    path = index.path.parent / f"pixels-{store_size}-{index.pixel_digest(VERSION)}{seen}.bin"
    return PixelCache(path, index.files.names, stored_shapes(index.files.shapes, store_size))


class Reader:
    """Reads a folder's images from the cache, or the same pixels from the files if there is no cache.

    Args:
        index: The folder.
        image_size: Side of the crops to be made, in pixels.
        store_size: From :func:`choose_store_size`; None to read the files at their own size.
        window: See :func:`decode`.
    """

    def __init__(
        self, index: FolderIndex, image_size: int, store_size: int | None, window: Window | None = None
    ) -> None:
        self.root = index.root
        self.names, self.shapes = index.files.names, index.files.shapes
        self.store_size, self.window = store_size, window
        self.draft_size = round(STORE_FACTORS[0] * image_size)
        cache = None if store_size is None else cache_of(index, store_size, window)
        self.cache = cache if cache is not None and cache.is_whole else None
        self.files = index.files

    def __call__(self, image: str | int) -> np.ndarray:
        """Reads an image by its number, or by its path relative to the root, which has to be found: (H, W, 3) uint8.

        Raises:
            DecodeError: The image is missing or damaged.
            UserError: It has been replaced by another one since it was scanned.
        """
        if self.cache is not None:
            return self.cache.read(image)
        number = image if isinstance(image, int) else self.names.index(image)
        path = self.root / self.names[number]
        self._check_same(path, number)
        if self.store_size is not None:
            height, width = self.shapes[number].tolist()
            return read_shrunk(path, (height, width), self.store_size, self.window)
        return decode(path, self.draft_size, window=self.window)

    def _check_same(self, path: Path, number: int) -> None:
        size, mtime_ns = int(self.files.sizes[number]), int(self.files.mtimes[number])
        known = self.files.hashes[number]

        def is_same() -> bool:
            if known == f"{size}-{mtime_ns}".encode():  # published datasets are not decoded when they are scanned
                return path.stat().st_size == size
            return hash_pixels(read_pixels(path)).encode() == known

        check_same(path, size, mtime_ns, is_same)
