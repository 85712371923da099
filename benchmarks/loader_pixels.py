"""Used by ``loader.py``: the crops that all pipelines make, and how much their pixels differ."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from lit_splitmask.augment.base import Transform, crop_box
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.datamodules import image_folder
from lit_splitmask.images.cache import Reader
from lit_splitmask.loading.sampler import Key
from lit_splitmask.seeding import derive_seed

SEED = 0
PLAIN = PretrainAugment(min_scale=0.08)
SHRINKS = {"enlarged": (0.0, 1.0), "shrunk < 1.5×": (1.0, 1.5), "shrunk ≥ 1.5×": (1.5, math.inf)}
NUM_COMPARED = 64
ALIASED = "OpenCV bicubic, not antialiased"

Open = Callable[[str], DataLoader]
"""Opens a new pipeline; what it stores goes into the given folder."""


@dataclass(frozen=True)
class Crop:
    """A box in pixels, with torchvision's names, and whether its content is flipped."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def draw_crop(key: Key, shape: tuple[int, int], augment: PretrainAugment) -> Crop:
    """The crop that our pipeline makes."""
    rng = np.random.default_rng(derive_seed(SEED, "augment", *key))
    left, top, right, bottom = crop_box(rng, *shape, min_scale=augment.min_scale, max_scale=augment.max_scale)
    return Crop(top, left, bottom - top, right - left, rng.random() < augment.hflip)


def compare_pixels(
    data: image_folder.ImageFolder, pipelines: dict[str, Open], index_dir: str, console: Console
) -> None:
    """Prints how much the pipelines' pixels differ for the same boxes, and how much they would without antialiasing.

    Raises:
        RuntimeError: The pipelines make different crops, or give them in different forms.
    """
    loaders = {name: open_pipeline(index_dir) for name, open_pipeline in pipelines.items()}
    datasets: dict[str, Any] = {name: loader.dataset for name, loader in loaders.items()}
    samples, records = data.train_samples, data.index.files
    size = data.image_size
    pairs = [("ours", "Pillow"), ("ours", "torchvision"), ("torchvision", "Pillow"), (ALIASED, "Pillow")]
    gaps: dict[tuple[str, str], list[np.ndarray]] = {pair: [] for pair in pairs}
    factors: list[float] = []
    num_turned = num_stored_smaller = 0
    for index in range(0, len(samples), max(1, len(samples) // NUM_COMPARED))[:NUM_COMPARED]:
        file, key = samples.files[index], (0, index)
        with Image.open(data.index.root / file) as image:
            if (image.height, image.width) != records[file].shape:  # EXIF: only ours turns it upright
                num_turned += 1
                continue
        pixels = {name: dataset[key]["image"].numpy() for name, dataset in datasets.items()}
        if any(made.shape != (3, size, size) or made.dtype != np.uint8 for made in pixels.values()):
            forms = {name: (made.shape, made.dtype) for name, made in pixels.items()}
            raise RuntimeError(f"{file}: all crops should be (3, {size}, {size}) uint8, but they are {forms}.")
        stored = data.source.read(file)
        num_stored_smaller += stored.shape[:2] != records[file].shape
        crop = draw_crop(key, stored.shape[:2], PLAIN)
        if not is_same_crop(datasets["ours"].transforms[0], key, stored.shape[:2], crop, size):
            raise RuntimeError(f"{file}: our pipeline does not crop {crop}; draw_crop must draw the same box.")
        factors.append(math.sqrt(crop.height * crop.width) / size)
        pixels[ALIASED] = resize(stored, crop, size, cv2.INTER_CUBIC)
        for (one, other), values in gaps.items():
            values.append(np.abs(pixels[one].astype(np.int16) - pixels[other].astype(np.int16)))
    members = {name: [low <= factor < high for factor in factors] for name, (low, high) in SHRINKS.items()}
    columns = [f"{name}, {sum(chosen)} crops" for name, chosen in members.items()]
    title = f"pixel differences (of 255) in {len(factors)} crops: mean / 99th percentile"
    table = Table("pipelines", "all", *columns, title=title)
    for pair, values in gaps.items():
        parts = [list(compress(values, chosen)) for chosen in members.values()]
        table.add_row(" – ".join(pair), *(mean_and_tail(part) for part in (values, *parts)))
    console.print(table, describe_stored(data, num_stored_smaller, len(factors)))
    if num_turned:
        console.print(f"{num_turned} images were not compared: only our pipeline turns them by EXIF.")


def is_same_crop(transform: Transform, key: Key, shape: tuple[int, int], crop: Crop, size: int) -> bool:
    """Whether our pipeline makes a certain crop, tested on linear ramps, where the interpolation does not matter."""
    ramps = np.stack([*np.indices(shape), np.zeros(shape)], axis=2) * (255 / np.array([*shape, 1]))
    image = ramps.round().astype(np.uint8)
    made = transform(image, derive_seed(SEED, "augment", *key)).transpose(2, 0, 1)
    return float(np.abs(made - resize(image, crop, size, cv2.INTER_LINEAR).astype(float)).mean()) < 0.5


def describe_stored(data: image_folder.ImageFolder, num_smaller: int, num_compared: int) -> str:
    """Describes the size at which our pipeline reads images."""
    height, width = data.index.median_size
    read = data.source.read
    if not isinstance(read, Reader) or read.cache is None or read.store_size is None:
        return "Ours has no cache for these images and decodes each time."
    return (
        f"Ours reads stored images with a short side of at most {read.store_size} px ({read.store_size / data.image_size:.3g} × "
        f"the crop); the others read the originals, of median size {height} × {width} px. {num_smaller} of these "
        f"{num_compared} are stored smaller than their originals."
    )


def resize(image: np.ndarray, crop: Crop, size: int, interpolation: int) -> np.ndarray:
    """A crop (3, size, size) made with OpenCV."""
    part = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    resized = cv2.resize(part, (size, size), interpolation=interpolation)
    return (resized[:, ::-1] if crop.flip else resized).transpose(2, 0, 1)


def mean_and_tail(gaps: list[np.ndarray]) -> str:
    """Mean and 99th percentile of all differences."""
    if not gaps:
        return "–"
    values = np.stack(gaps)
    return f"{values.mean():.2f} / {np.percentile(values, 99):.0f}"
