"""Mean and standard deviation of pixels, for normalisation."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.images.decode import decode
from lit_splitmask.images.scan import in_threads
from lit_splitmask.views import IMAGENET_MEAN, IMAGENET_STD

Colour = tuple[float, float, float]
StatisticsKind = Literal["imagenet", "dataset", "half"]

FIXED: dict[str, tuple[Colour, Colour]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_MAX_IMAGES = 2_000
_CHUNK = 2**20  # pixels
_MIN_STD = 1 / 255
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow converts


def luminance(rgb: Colour) -> float:
    """The luminance of a colour."""
    return sum(weight * value for weight, value in zip(_LUMINANCE, rgb, strict=True))


def dataset_statistics(
    root: Path, files: Sequence[str], hash_of: Callable[[str], str], folder: Path
) -> tuple[Colour, Colour]:
    """Per-channel mean and standard deviation over up to 2,000 training images, of pixels in [0, 1].

    All images have equal weight. The result is measured once and saved in ``folder``.

    Args:
        root: Folder that the paths are relative to.
        files: The training images.
        hash_of: Gives the hash of an image's pixels.
        folder: Where the result is saved, under a name that depends on the hashes.

    Raises:
        UserError: There are no training images, or one is missing or damaged.
    """
    if not files:
        raise UserError("statistics=dataset measures the training images, but there are none. Use statistics=imagenet.")
    sample = np.linspace(0, len(files) - 1, min(len(files), _MAX_IMAGES)).round().astype(int)
    files = [files[index] for index in sample]
    digest = hashlib.blake2b("\n".join(hash_of(file) for file in files).encode(), digest_size=8).hexdigest()
    path = folder / f"statistics-{digest}.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        return _colour(stored["mean"]), _colour(stored["std"])
    moments = np.array(list(in_threads(lambda file: _moments(decode(root / file)), files, "Measuring pixels")))
    first, second = moments.mean(axis=0)
    std = np.sqrt(np.maximum(second - first**2, 0)).clip(_MIN_STD)
    mean_values, std_values = [round(float(value), 4) for value in first], [round(float(value), 4) for value in std]
    write_atomically(path, json.dumps({"mean": mean_values, "std": std_values, "images": len(files)}).encode())
    return _colour(mean_values), _colour(std_values)


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
