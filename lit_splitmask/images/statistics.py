"""Mean and standard deviation of pixels, for normalisation."""

import hashlib
import json
from typing import Literal

import numpy as np

from lit_splitmask.files import write_atomically
from lit_splitmask.images.decode import decode
from lit_splitmask.images.index import FolderIndex
from lit_splitmask.images.scan import in_threads

Colour = tuple[float, float, float]
StatisticsKind = Literal["imagenet", "dataset", "half"]

FIXED: dict[str, tuple[Colour, Colour]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_MOST_IMAGES = 2_000
_LEAST_STD = 1 / 255


def dataset_statistics(index: FolderIndex) -> tuple[Colour, Colour]:
    """Per-channel mean and standard deviation over up to 2,000 train images, in units of [0, 1] pixels.

    Every image weighs the same. The result is kept beside the folder's record, and measured once.

    Raises:
        UserError: An image cannot be decoded any more.
    """
    train = index.splits.get("train", [])
    files = [
        train[place] for place in np.linspace(0, len(train) - 1, min(len(train), _MOST_IMAGES)).round().astype(int)
    ]
    digest = hashlib.blake2b("\n".join(index.files[file].hash for file in files).encode(), digest_size=8).hexdigest()
    path = index.path.with_name(f"statistics-{digest}.json")
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        return _colour(stored["mean"]), _colour(stored["std"])
    moments = np.array(list(in_threads(lambda file: _moments(decode(index.root / file)), files, "Measuring pixels")))
    first, second = moments.mean(axis=0)
    std = np.sqrt(np.maximum(second - first**2, 0)).clip(_LEAST_STD)
    mean_values, std_values = [round(float(value), 4) for value in first], [round(float(value), 4) for value in std]
    write_atomically(path, json.dumps({"mean": mean_values, "std": std_values, "images": len(files)}).encode())
    return _colour(mean_values), _colour(std_values)


def _colour(values: list[float]) -> Colour:
    red, green, blue = values
    return red, green, blue


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3,) mean and (3,) mean square of an image's pixels, scaled to [0, 1]."""
    pixels = image.reshape(-1, 3) / 255.0
    return pixels.mean(axis=0), (pixels**2).mean(axis=0)
