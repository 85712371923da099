"""Statistics of pixels: mean and standard deviation for normalisation, and the window of images of more than 8 bits."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.images.decode import decode, read_pixels
from lit_splitmask.images.scan import in_threads
from lit_splitmask.images.window import Window
from lit_splitmask.views import IMAGENET_MEAN, IMAGENET_STD

Item = TypeVar("Item")
Colour = tuple[float, float, float]
StatisticsKind = Literal["imagenet", "dataset", "half"]

FIXED: dict[str, tuple[Colour, Colour]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_MAX_IMAGES = 2_000
_CHUNK = 2**20  # pixels
PERCENTILES = (0.5, 99.5)
"""The percentiles of the pixels at the ends of a measured window: single hot pixels are outside."""

MOST_WINDOW_IMAGES = 200
_WINDOW_PIXELS = 2**15  # of an image
_MIN_STD = 1 / 255
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow converts


def luminance(rgb: Colour) -> float:
    """The luminance of a colour."""
    return sum(weight * value for weight, value in zip(_LUMINANCE, rgb, strict=True))


def dataset_statistics(
    root: Path, files: Sequence[str], hash_of: Callable[[str], str], folder: Path, window: Window | None = None
) -> tuple[Colour, Colour]:
    """Per-channel mean and standard deviation over up to 2,000 training images, of pixels in [0, 1].

    All images have equal weight. The result is measured once and saved in ``folder``.

    Args:
        root: Folder that the paths are relative to.
        files: The training images.
        hash_of: Gives the hash of an image's pixels.
        folder: Where the result is saved, under a name that depends on the hashes and the window.
        window: See :func:`decode`.

    Raises:
        UserError: There are no training images, or one is missing or damaged.
    """
    if not files:
        raise UserError("statistics=dataset measures the training images, but there are none. Use statistics=imagenet.")
    files = _evenly(files, _MAX_IMAGES)
    known_by = [hash_of(file) for file in files] + ([] if window is None else [str(window)])
    digest = hashlib.blake2b("\n".join(known_by).encode(), digest_size=8).hexdigest()
    path = folder / f"statistics-{digest}.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        return _colour(stored["mean"]), _colour(stored["std"])
    moments = np.array(
        list(in_threads(lambda file: _moments(decode(root / file, window=window)), files, "Measuring pixels"))
    )
    first, second = moments.mean(axis=0)
    std = np.sqrt(np.maximum(second - first**2, 0)).clip(_MIN_STD)
    mean_values, std_values = [round(float(value), 4) for value in first], [round(float(value), 4) for value in std]
    write_atomically(path, json.dumps({"mean": mean_values, "std": std_values, "images": len(files)}).encode())
    return _colour(mean_values), _colour(std_values)


def measure_window(images: Sequence[tuple[Path, str]], folder: Path) -> Window:
    """The 0.5th and 99.5th percentile of the pixels of up to 200 images, evenly spaced, of up to 32,768 pixels of each.

    Args:
        images: Paths of images of more than 8 bits, at least one, and the hashes of their pixels.
        folder: Where the result is saved, under a name that depends on the hashes.

    Raises:
        UserError: An image is missing or damaged, or no pixel is a finite number.
    """
    images = _evenly(images, MOST_WINDOW_IMAGES)
    digest = hashlib.blake2b("\n".join(pixels for _, pixels in images).encode(), digest_size=8).hexdigest()
    path = folder / f"window-{digest}.json"
    if path.exists():
        low, high = json.loads(path.read_text(encoding="utf-8"))["window"]
        return low, high
    values = np.concatenate(list(in_threads(_some_values, [file for file, _ in images], "Measuring values")))
    if not len(values):
        raise UserError(f"No pixel of {images[0][0]} and {len(images) - 1} more images is a finite number.")
    low, high = map(float, np.percentile(values, PERCENTILES))
    if low == high:  # nearly everything is background
        low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    elif (values == np.rint(values)).all():
        low, high = float(math.floor(low)), float(math.ceil(high))
    window = low, high
    write_atomically(path, json.dumps({"window": window, "images": len(images)}).encode())
    return window


def _some_values(path: Path) -> np.ndarray:
    """Values of an evenly spaced grid of pixels that are finite numbers, (n,) float64."""
    values = read_pixels(path)
    step = math.ceil(math.sqrt(max(1.0, values.size / _WINDOW_PIXELS)))
    some = values[::step, ::step].astype(np.float64).ravel()
    return some[np.isfinite(some)]


def _evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most this many, evenly spaced."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)]


def _colour(values: list[float]) -> Colour:
    red, green, blue = values
    return red, green, blue


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3,) mean and (3,) mean square of an image's pixels, scaled to [0, 1]."""
    pixels = image.reshape(-1, 3)
    first, second = np.zeros(3), np.zeros(3)
    for start in range(
        0, len(pixels), _CHUNK
    ):  # as floats, all pixels of a huge image would take sixteen times its memory
        some = pixels[start : start + _CHUNK] / 255.0
        first += some.sum(axis=0)
        second += (some**2).sum(axis=0)
    return first / len(pixels), second / len(pixels)
