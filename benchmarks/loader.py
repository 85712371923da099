"""Images a second of the pre-training pipeline, against torchvision's and Pillow's in a plain torch DataLoader.

Ours is the ImageFolder datamodule with its pixel cache, read through its own training loader. The others are torchvision's
ImageFolder over the same images, decoding a file each time: one to tensors with torchvision.io, one with Pillow. All crop
the same boxes, drawn from the same keys, resize antialiased and give uint8. Before anything is timed, the pixels are
compared. The first pass of ours starts from nothing: scan, splits, cache, epoch; that of the others is their first epoch.
Later passes come in epochs of several, for all alike.
The files are in the system's page cache by then, for all alike.

    python benchmarks/loader.py --synthetic 4000
"""

import argparse
import logging
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import compress, count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import alternate, machine, median_ratio
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets.folder import pil_loader
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lit_splitmask.augment.base import Transform, crop_box
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.datamodules import image_folder
from lit_splitmask.images.cache import Reader
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.loading.budget import Budget
from lit_splitmask.loading.sampler import Key, WrapAroundSampler
from lit_splitmask.seeding import derive_seed

SEED = 0
PLAIN = PretrainAugment(min_scale=0.08)
STRONG = PretrainAugment(min_scale=0.08, color_jitter=0.8, grayscale=0.2, blur=0.5, solarize=0.2)
SHRINKS = {"enlarged": (0.0, 1.0), "shrunk < 1.5×": (1.0, 1.5), "shrunk ≥ 1.5×": (1.5, math.inf)}
NUM_COMPARED = 64
PASSES_AN_EPOCH = 4
ALIASED = "OpenCV bicubic, not antialiased"

Open = Callable[[str], DataLoader]
"""Opens a pipeline from nothing; what it keeps goes into the folder given."""


@dataclass(frozen=True)
class Crop:
    """A box in pixels and whether it is flipped; the fields are named as torchvision names them."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def draw_crop(key: Key, shape: tuple[int, int], augment: PretrainAugment) -> Crop:
    """The crop that ours makes."""
    rng = np.random.default_rng(derive_seed(SEED, "augment", *key))
    left, top, right, bottom = crop_box(rng, *shape, min_scale=augment.min_scale, max_scale=augment.max_scale)
    return Crop(top, left, bottom - top, right - left, rng.random() < augment.hflip)


def read_tensor(path: str) -> Tensor:
    """torchvision's decoder; for JPEGs that of libjpeg-turbo."""
    return decode_image(path, mode=ImageReadMode.RGB)


class OnTheFly(torchvision.datasets.ImageFolder):
    """torchvision's ImageFolder over some images, cropped by key; v2's functions take tensors and Pillow's images alike."""

    def __init__(
        self, root: Path, files: list[str], load: Callable[[str], Any], image_size: int, augment: PretrainAugment
    ) -> None:
        place = {str(root / file): number for number, file in enumerate(files)}
        super().__init__(str(root), loader=load, is_valid_file=place.__contains__, allow_empty=True)
        self.samples.sort(key=lambda sample: place[sample[0]])  # the same index is then the same image as in ours
        self.image_size, self.augment = image_size, augment
        self.strong = strong_transform(augment) if augment.color_jitter else None

    def __getitem__(self, key: Key) -> dict[str, Tensor]:  # type: ignore[override]
        path, label = self.samples[key[1]]
        image = self.loader(path)
        height, width = F.get_size(image)
        crop = draw_crop(key, (height, width), self.augment)
        image = F.resized_crop(
            image,
            crop.top,
            crop.left,
            crop.height,
            crop.width,
            [self.image_size, self.image_size],
            interpolation=v2.InterpolationMode.BICUBIC,
            antialias=True,
        )
        if self.strong is not None:
            image = self.strong(image)
        if crop.flip:
            image = F.horizontal_flip(image)
        pixels = image if isinstance(image, Tensor) else F.pil_to_tensor(image)
        return {"image": pixels, "label": torch.tensor(label), "index": torch.tensor(key[1])}


def strong_transform(augment: PretrainAugment) -> v2.Transform:
    """The strong augmentation, of torchvision's parts.

    Its blur has one size of kernel; 7 is what ours takes for the middle sigma.
    """
    return v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], augment.color_jitter),
            v2.RandomGrayscale(augment.grayscale),
            v2.RandomApply([v2.GaussianBlur(7, (0.1, 2.0))], augment.blur),
            v2.RandomSolarize(128, augment.solarize),
        ]
    )


def open_ours(args: argparse.Namespace, augment: PretrainAugment, index_dir: str) -> image_folder.ImageFolder:
    """Our datamodule, ready to train for one pass an epoch."""
    data = image_folder.ImageFolder(
        args.root,
        args.image_size,
        batch_size=args.batch,
        budget=Budget(passes=1),
        num_epochs=1,
        augment=augment,
        seed=SEED,
        num_workers=args.workers,
        splits=SplitOptions(val_share=0, test_share=0),
        cache_gb=args.cache_gb,
        index_dir=index_dir,
    )
    data.prepare_data()
    data.setup("fit")
    return data


def make_pipelines(
    args: argparse.Namespace, data: image_folder.ImageFolder, augment: PretrainAugment, suffix: str = ""
) -> dict[str, Open]:
    """What opens each pipeline; all get the same keys from samplers of their own."""

    def on_the_fly(load: Callable[[str], Any]) -> DataLoader:
        images = OnTheFly(data.index.root, list(data.train_samples.files), load, args.image_size, augment)
        sampler = WrapAroundSampler(
            len(images), args.batch, steps_per_epoch=data.steps_per_epoch, global_step=lambda: 0, seed=SEED
        )
        return DataLoader(
            images, args.batch, sampler=sampler, num_workers=args.workers, persistent_workers=args.workers > 0
        )

    return {
        f"ours{suffix}": lambda index_dir: open_ours(args, augment, index_dir).train_dataloader(),
        f"torchvision{suffix}": lambda _: on_the_fly(read_tensor),
        f"Pillow{suffix}": lambda _: on_the_fly(pil_loader),
    }


def read_pass(loader: DataLoader, number: int) -> None:
    """Reads one epoch, of other crops than the epochs before."""
    sampler = loader.sampler
    assert isinstance(sampler, WrapAroundSampler)
    sampler.global_step = lambda: number * sampler.steps_per_epoch
    for _ in loader:
        pass


def epochs(loader: DataLoader) -> Iterator[None]:
    """Reads one epoch of several passes after the other, one for each ``next``."""
    sampler = loader.sampler
    assert isinstance(sampler, WrapAroundSampler)
    sampler.steps_per_epoch *= PASSES_AN_EPOCH
    for number in count():
        read_pass(loader, number)
        yield


def time_first(pipelines: dict[str, Open], rounds: int) -> dict[str, list[float]]:
    """Seconds from nothing to the end of the first epoch; closing a pipeline is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(rounds):
        for name, open_pipeline in pipelines.items():
            with tempfile.TemporaryDirectory() as directory:
                start = time.perf_counter()
                loader = open_pipeline(directory)
                read_pass(loader, 0)
                seconds[name].append(time.perf_counter() - start)
                del loader
    return seconds


def time_later(pipelines: dict[str, Open], index_dir: str, rounds: int) -> dict[str, list[float]]:
    """Seconds a pass, over epochs of several; the first of each, which starts the workers, is not counted."""
    tasks: dict[str, Callable[[], object]] = {}
    for name, open_pipeline in pipelines.items():
        tasks[name] = partial(next, epochs(open_pipeline(index_dir)))
    return {name: [value / PASSES_AN_EPOCH for value in values] for name, values in alternate(tasks, rounds).items()}


def compare_pixels(
    data: image_folder.ImageFolder, pipelines: dict[str, Open], index_dir: str, console: Console
) -> None:
    """Prints how far the pipelines' pixels are apart for the same boxes, and what no antialiasing would do.

    Raises:
        RuntimeError: The pipelines do not make the same crops, or not in the same form.
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
            if (image.height, image.width) != records[file].shape:  # EXIF: ours turns it upright, the others do not
                num_turned += 1
                continue
        pixels = {name: dataset[key]["image"].numpy() for name, dataset in datasets.items()}
        if any(made.shape != (3, size, size) or made.dtype != np.uint8 for made in pixels.values()):
            forms = {name: (made.shape, made.dtype) for name, made in pixels.items()}
            raise RuntimeError(f"{file}: not all are (3, {size}, {size}) uint8, but {forms}")
        stored = data.source.read(file)
        num_stored_smaller += stored.shape[:2] != records[file].shape
        crop = draw_crop(key, stored.shape[:2], PLAIN)
        if not is_same_crop(datasets["ours"].transform, key, stored.shape[:2], crop, size):
            raise RuntimeError(f"{file}: ours does not crop {crop}; draw_crop must draw as it does.")
        factors.append(math.sqrt(crop.height * crop.width) / size)
        pixels[ALIASED] = resize(stored, crop, size, cv2.INTER_CUBIC)
        for (one, other), values in gaps.items():
            values.append(np.abs(pixels[one].astype(np.int16) - pixels[other].astype(np.int16)))
    members = {name: [low <= factor < high for factor in factors] for name, (low, high) in SHRINKS.items()}
    columns = [f"{name}, {sum(chosen)} crops" for name, chosen in members.items()]
    title = f"differences of pixels, of 255, in {len(factors)} crops: mean / 99th percentile"
    table = Table("pipelines", "all", *columns, title=title)
    for pair, values in gaps.items():
        parts = [list(compress(values, chosen)) for chosen in members.values()]
        table.add_row(" – ".join(pair), *(mean_and_tail(part) for part in (values, *parts)))
    console.print(table, describe_stored(data, num_stored_smaller, len(factors)))
    if num_turned:
        console.print(f"{num_turned} images are turned by EXIF in ours only, and were not compared.")


def is_same_crop(transform: Transform, key: Key, shape: tuple[int, int], crop: Crop, size: int) -> bool:
    """Whether ours makes a certain crop: on ramps from side to side, where the way of resizing does not matter."""
    ramps = np.stack([*np.indices(shape), np.zeros(shape)], axis=2) * (255 / np.array([*shape, 1]))
    image = ramps.round().astype(np.uint8)
    made = transform(image, derive_seed(SEED, "augment", *key)).transpose(2, 0, 1)
    return float(np.abs(made - resize(image, crop, size, cv2.INTER_LINEAR).astype(float)).mean()) < 0.5


def describe_stored(data: image_folder.ImageFolder, num_smaller: int, num_compared: int) -> str:
    """At which size ours reads images, in words."""
    height, width = data.index.median_size
    read = data.source.read
    if not isinstance(read, Reader) or read.cache is None or read.store_size is None:
        return "Ours has no cache here, and decodes each time."
    return (
        f"Ours reads stored images of short side at most {read.store_size} px ({read.store_size / data.image_size:.3g} × the "
        f"crop), the others the originals, of median {height} × {width} px. {num_smaller} of these {num_compared} are stored "
        "smaller than they were."
    )


def resize(image: np.ndarray, crop: Crop, size: int, interpolation: int) -> np.ndarray:
    """A crop by OpenCV, (3, size, size)."""
    part = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    resized = cv2.resize(part, (size, size), interpolation=interpolation)
    return (resized[:, ::-1] if crop.flip else resized).transpose(2, 0, 1)


def mean_and_tail(gaps: list[np.ndarray]) -> str:
    if not gaps:
        return "–"
    values = np.stack(gaps)
    return f"{values.mean():.2f} / {np.percentile(values, 99):.0f}"


@contextmanager
def synthetic(num_images: int) -> Iterator[str]:
    """A temporary folder of smooth photos: noise at all scales, larger at coarse ones, JPEG of quality 90."""
    with tempfile.TemporaryDirectory() as directory:
        for number in range(num_images):
            rng = np.random.default_rng(number)
            image = rng.normal(128, 2.5, (375, 500, 3)).astype(np.float32)  # the grain of a sensor
            detail = cv2.resize(rng.random((4, 5), dtype=np.float32), (500, 375))[..., None] ** 2  # parts are plain
            for scale in (2, 4, 8, 16, 32, 64, 128):
                coarse = rng.standard_normal((375 // scale + 3, 500 // scale + 3, 3), dtype=np.float32)
                coarse = coarse.mean(axis=2, keepdims=True) + 0.3 * coarse  # colours vary less than light
                layer = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC) * 7 * scale**0.3
                image += layer * 3 * detail if scale < 16 else layer
            path = Path(directory) / "photos" / f"class_{number % 10}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        yield str(Path(directory) / "photos")


def run(args: argparse.Namespace, index_dir: str) -> None:
    """Compares and times everything, with an index of its own for all but first passes."""
    console = Console()
    data = open_ours(args, PLAIN, index_dir)
    files = data.train_samples.files
    kilobytes = statistics.mean((data.index.root / file).stat().st_size for file in files) / 1000
    console.print(f"{len(files):,} training images of {kilobytes:.0f} kB a file, {args.workers} workers")
    others = len(data.index.files) - len(files)
    if others:
        console.print(f"The first pass of ours also reads and stores {others:,} images of val and test.")

    plain = make_pipelines(args, data, PLAIN)
    strong = make_pipelines(args, data, STRONG, ", strong")
    compare_pixels(data, plain, index_dir, console)
    first = time_first(plain, args.rounds)
    later = time_later(plain, index_dir, args.rounds) | time_later(strong, index_dir, max(1, args.rounds // 2))

    images = data.steps_per_epoch * args.batch
    table = Table(
        "pipeline",
        "first pass, images/s",
        "ours is faster by",
        "later passes, images/s",
        "ours is faster by",
        title=f"{args.image_size} px, batches of {args.batch}, {images:,} images a pass",
    )
    for name in later:
        reference = "ours, strong" if name in strong else "ours"
        cells = [
            cell
            for seconds in (first, later)
            for cell in (
                (
                    f"{images / statistics.median(seconds[name]):.0f}",
                    f"{median_ratio(seconds[name], seconds[reference]):.2f}",
                )
                if name in seconds
                else ("", "")
            )
        ]
        table.add_row(name, *cells)
    console.print(
        table,
        f"{machine()}, torchvision {torchvision.__version__}, Pillow {Image.__version__}; medians of {args.rounds} alternating "
        "rounds. Bounds: later passes at least 3 times as fast, the first pass no slower.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--root", help="a folder of class folders, with split folders above them or not")
    source.add_argument("--synthetic", type=int, metavar="N", help="make N photos of 500 × 375 instead")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache-gb", type=float, default=8.0, help="as of the datamodule")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # the budget, each time
    with tempfile.TemporaryDirectory() as index_dir:
        if args.root:
            run(args, index_dir)
            return
        with synthetic(args.synthetic) as args.root:
            run(args, index_dir)


if __name__ == "__main__":
    main()
