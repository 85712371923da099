"""Images per second of the pre-training pipeline, against torchvision's and Pillow's in a plain torch DataLoader.

Ours is the ImageFolder datamodule with its pixel cache, read through its training loader. The others are torchvision's
ImageFolder over the same images, which decodes a file each time: one to tensors with torchvision.io, one with Pillow. All three
crop the same boxes, drawn from the same keys, resize with antialiasing and give uint8. Their pixels are compared before they
are timed. Our first pass includes scan, splits, cache and an epoch; that of the others is their first epoch. Later passes are
timed in epochs of several passes. The files are in the system's page cache by then, for all three.

    python benchmarks/loader.py --synthetic 4000
"""

import argparse
import gc
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from loader_pixels import PLAIN, SEED, Open, compare_pixels, draw_crop
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

from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.datamodules import image_folder
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.loading.budget import Budget
from lit_splitmask.loading.sampler import Key, WrapAroundSampler

STRONG = PretrainAugment(min_scale=0.08, color_jitter=0.8, grayscale=0.2, blur=0.5, solarize=0.2)
PASSES_PER_EPOCH = 4


def read_tensor(path: str) -> Tensor:
    """Decodes with torchvision, which uses libjpeg-turbo for JPEGs."""
    return decode_image(path, mode=ImageReadMode.RGB)


class OnTheFly(torchvision.datasets.ImageFolder):
    """torchvision's ImageFolder over given images, cropped by key; v2's functions take tensors as well as Pillow's images."""

    def __init__(
        self, root: Path, files: list[str], load: Callable[[str], Any], image_size: int, augment: PretrainAugment
    ) -> None:
        index_of = {str(root / file): index for index, file in enumerate(files)}
        super().__init__(str(root), loader=load, is_valid_file=index_of.__contains__, allow_empty=True)
        self.samples.sort(key=lambda sample: index_of[sample[0]])  # indices then mean the same images as in ours
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
    """The strong augmentation in torchvision's parts.

    Its blur has a fixed kernel size, 7: ours uses that for the middle sigma.
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
    """Our datamodule, ready to train for one pass per epoch."""
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
    """Functions that open the pipelines; each has its own sampler, and all samplers give the same keys."""

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
    """Reads one epoch; each epoch has different crops."""
    sampler = loader.sampler
    assert isinstance(sampler, WrapAroundSampler)
    sampler.global_step = lambda: number * sampler.steps_per_epoch
    for _ in loader:
        pass


def epochs(loader: DataLoader) -> Iterator[None]:
    """Reads one epoch of several passes at each ``next``."""
    sampler = loader.sampler
    assert isinstance(sampler, WrapAroundSampler)
    sampler.steps_per_epoch *= PASSES_PER_EPOCH
    for number in count():
        read_pass(loader, number)
        yield


def time_first(pipelines: dict[str, Open], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds from opening a new pipeline to the end of its first epoch, and processor seconds, which include closing it."""
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    processor: dict[str, list[float]] = {name: [] for name in pipelines}
    for number in range(1 + rounds):  # the first one imports
        for name, open_pipeline in pipelines.items():
            with tempfile.TemporaryDirectory() as directory:
                start, before = time.perf_counter(), sum(os.times()[:4])
                loader = open_pipeline(directory)
                read_pass(loader, 0)
                end = time.perf_counter()
                del loader
                gc.collect()  # ends the workers, whose time counts from then on
            if number:
                seconds[name].append(end - start)
                processor[name].append(sum(os.times()[:4]) - before)
    return seconds, processor


def time_later(pipelines: dict[str, Open], index_dir: str, rounds: int) -> dict[str, list[float]]:
    """Seconds per pass, over epochs of several passes, without the first epoch, which starts the workers."""
    tasks: dict[str, Callable[[], object]] = {}
    for name, open_pipeline in pipelines.items():
        tasks[name] = partial(next, epochs(open_pipeline(index_dir)))
    return {name: [value / PASSES_PER_EPOCH for value in values] for name, values in alternate(tasks, rounds).items()}


@contextmanager
def synthetic(num_images: int) -> Iterator[str]:
    """A temporary folder of synthetic photos: noise at all scales, stronger at coarse ones, as JPEG of quality 90."""
    with tempfile.TemporaryDirectory() as directory:
        for number in range(num_images):
            rng = np.random.default_rng(number)
            image = rng.normal(128, 2.5, (375, 500, 3)).astype(np.float32)  # sensor noise
            detail = cv2.resize(rng.random((4, 5), dtype=np.float32), (500, 375))[..., None] ** 2  # leaves plain areas
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
    """Compares and times everything; only the first passes make a new index."""
    console = Console()
    data = open_ours(args, PLAIN, index_dir)
    files = data.train_samples.files
    kilobytes = statistics.mean((data.index.root / file).stat().st_size for file in files) / 1000
    console.print(f"{len(files):,} training images of {kilobytes:.0f} kB per file, {args.workers} workers")
    others = len(data.index.files) - len(files)
    if others:
        console.print(f"Our first pass also reads and stores {others:,} images of val and test.")

    plain = make_pipelines(args, data, PLAIN)
    strong = make_pipelines(args, data, STRONG, ", strong")
    compare_pixels(data, plain, index_dir, console)
    images = data.steps_per_epoch * args.batch
    measured: dict[str, dict[str, list[float]]] = {}
    if args.only != "later":
        measured["first pass, images/s"], measured["per processor second"] = time_first(plain, args.rounds)
    if args.only != "first":
        later = time_later(plain, index_dir, args.rounds)
        measured["later passes, images/s"] = later | time_later(strong, index_dir, max(1, args.rounds // 2))
    title = f"{args.image_size} px, batches of {args.batch}, {images:,} images per pass"
    table = Table("pipeline", *(column for name in measured for column in (name, "ours is faster by")), title=title)
    for name in plain | (strong if args.only != "first" else {}):
        reference = "ours, strong" if name in strong else "ours"
        cells = [
            cell
            for seconds in measured.values()
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
        "rounds. Requirements: later passes at least 3 times as fast, the first pass no slower.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--root", help="folder of class folders, optionally inside split folders")
    source.add_argument("--synthetic", type=int, metavar="N", help="generate N photos of 500 × 375 px instead")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache-gb", type=float, default=8.0, help="cache_gb of the datamodule")
    parser.add_argument("--only", choices=["first", "later"], help="time these passes only")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it repeats the budget
    with tempfile.TemporaryDirectory() as index_dir:
        if args.root:
            run(args, index_dir)
            return
        with synthetic(args.synthetic) as args.root:
            run(args, index_dir)


if __name__ == "__main__":
    main()
