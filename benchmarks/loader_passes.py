"""Time and memory of the border between two passes, and memory of file names in each worker.

All images are one small constant, so only the work of the loader is measured. A border is the time from the last batch of a
pass to the first of the next. Inside our trainer epoch the sampler starts the next pass some batches ahead; the time that those
steps take beyond the median step is added to the border. Memory is measured in separate processes, as Linux reports it: the
peak of the resident set, and its anonymous part, which excludes mapped files. A worker's anonymous part includes pages that it
still shares with its parent process; its private part does not.

    python benchmarks/loader_passes.py
    python benchmarks/loader_passes.py --record 1281167     # instead: opening the record of that many files, which
                                                            # need not exist, and shards of as many images of one byte
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from timing import machine
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_splitmask.datamodules import ImageFolder, Shards
from lit_splitmask.images.index import FolderIndex, folder_in, load_index, save_index
from lit_splitmask.images.names import Names, Selection
from lit_splitmask.images.records import Records
from lit_splitmask.images.shards import litdata, write_shards
from lit_splitmask.loading.crops import IndexedImages
from lit_splitmask.loading.loader import make_loader
from lit_splitmask.loading.sampler import WrapAroundSampler
from lit_splitmask.loading.samples import Samples

PIXELS = np.zeros((32, 32, 3), dtype=np.uint8)
NUM_BORDERS = 5
AFTER_PASSES = (1, 3, 10)
FEW = 10
OURS, ORDINARY = "ours", "DataLoader(shuffle=True)"


class ListSamples:
    """What an ordinary dataset holds: a list of strings.

    Args:
        files: File names.
        labels: One label per file.
    """

    def __init__(self, files: Iterator[str], labels: np.ndarray) -> None:
        self.files = list(files)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.files)


HOLDERS: dict[str, Callable[[Iterator[str], np.ndarray], Any]] = {"Samples": Samples, "list of strings": ListSamples}


def read(file: str) -> np.ndarray:
    """Returns constant pixels without reading."""
    return PIXELS


def keep(image: np.ndarray, seed: int) -> np.ndarray:
    """Returns the image without cropping."""
    return image


def make_images(num_names: int, holder: str = "Samples") -> IndexedImages:
    """A dataset with names as long as those of iNaturalist."""
    names = (f"train_val/plants/{number % 8000:04d}/{number:032x}.jpg" for number in range(num_names))
    return IndexedImages(HOLDERS[holder](names, np.arange(num_names) % 8000), read, transform=keep)


def open_ours(images: IndexedImages, args: argparse.Namespace, steps_per_epoch: int) -> DataLoader:
    """Our training loader."""
    sampler = WrapAroundSampler(len(images), args.batch, steps_per_epoch=steps_per_epoch, global_step=lambda: 0)
    return make_loader(images, sampler, batch_size=args.batch, num_workers=args.workers)


class OneByOne(Dataset):
    """Images one by one, as an ordinary dataset gives them.

    Args:
        images: Images to give.
    """

    def __init__(self, images: IndexedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.images[index]


def open_ordinary(images: IndexedImages, args: argparse.Namespace, *, persistent: bool = False) -> DataLoader:
    """A plain DataLoader that shuffles."""
    return DataLoader(
        OneByOne(images), args.batch, shuffle=True, num_workers=args.workers, persistent_workers=persistent
    )


def gaps(loader: DataLoader, num_epochs: int) -> list[float]:
    """Seconds between batches over several epochs, without the wait for the first batch."""
    arrivals = []
    for _ in range(num_epochs):
        for _ in loader:
            arrivals.append(time.perf_counter())
    return np.diff(arrivals).tolist()


def measure_borders(args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Seconds of the median border and of the median step, per kind of border and round."""
    per_pass = args.items // args.batch
    images = make_images(args.items)
    loaders = {
        "ours, inside a trainer epoch": open_ours(images, args, per_pass * (NUM_BORDERS + 1)),
        "ours, between trainer epochs": open_ours(images, args, per_pass),
        f"{ORDINARY}, persistent workers": open_ordinary(images, args, persistent=True),
        ORDINARY: open_ordinary(images, args),
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    for _ in range(args.rounds):
        for name, loader in loaders.items():
            inside = "inside" in name
            seconds = gaps(loader, 1 if inside else NUM_BORDERS + 1)
            ahead = 2 * args.workers if inside else 0  # batches that torch requests from the sampler in advance
            at_border = [
                range(number * per_pass - 1 - ahead, number * per_pass) for number in range(1, NUM_BORDERS + 1)
            ]
            border_steps = {index for indices in at_border for index in indices}
            steps = [value for index, value in enumerate(seconds) if index not in border_steps]
            step = statistics.median(steps)
            borders = [step + sum(seconds[index] - step for index in indices) for indices in at_border]
            measured[name].append((statistics.median(borders), step))
    return measured


def memory(pid: int | str) -> dict[str, float]:
    """Peak resident, anonymous resident and private memory of a process, in MiB."""
    fields = {}
    for file in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields[name] = value.split()
    names = {"peak": "VmHWM", "anonymous": "RssAnon", "private": "Private_Dirty", "resident": "VmRSS"}
    return {name: int(fields[field][0]) / 1024 for name, field in names.items()}


def epochs(loader: DataLoader, num_epochs: int) -> Iterator[int]:
    """Yields after each epoch the process id of its first worker while the worker is alive."""
    for _ in range(num_epochs):
        iterator: Any = iter(loader)
        for number, _ in enumerate(iterator, start=1):
            if number == len(loader):
                owner: Any = loader._iterator or iterator  # the loader's iterator owns persistent workers
                yield owner._workers[0].pid


def measure_passes(args: argparse.Namespace, loader: str) -> dict[str, dict[str, float]]:
    """Memory of this process and of a worker after some passes."""
    images = make_images(args.items)
    opened = open_ours(images, args, args.items // args.batch) if loader == OURS else open_ordinary(images, args)
    result: dict[str, dict[str, float]] = {}
    for number, pid in enumerate(epochs(opened, max(AFTER_PASSES)), start=1):
        if number in AFTER_PASSES:
            result |= {f"main {number}": memory("self"), f"worker {number}": memory(pid)}
    return result


def measure_names(args: argparse.Namespace, holder: str, num_names: int) -> dict[str, dict[str, float]]:
    """Memory of a worker after reading as many images as the long list has names."""
    loader = open_ours(make_images(num_names, holder), args, -(-args.names // args.batch))
    return {"worker": memory(next(epochs(loader, 1)))}


def in_fresh_process(rounds: int, *what: str) -> dict[str, dict[str, float]]:
    """Medians over several runs of a measurement, each in a fresh process."""
    runs = []
    for _ in range(rounds):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", *what]
        runs.append(
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        )
    return {
        process: {name: statistics.median(run[process][name] for run in runs) for name in values}
        for process, values in runs[0].items()
    }


def borders_table(args: argparse.Namespace) -> Table:
    """Time of the borders between passes."""
    table = Table(
        "border between two passes", "ms", "step, ms", "ratio", title=f"{args.items:,} items, batches of {args.batch}"
    )
    for name, values in measure_borders(args).items():
        border, step = (statistics.median(column) * 1000 for column in zip(*values, strict=True))
        ratio = statistics.median(border / step for border, step in values)
        table.add_row(name, f"{border:.2f}", f"{step:.2f}", f"{ratio:.1f}")
    return table


def passes_table(args: argparse.Namespace) -> Table:
    """Memory after several passes."""
    table = Table(
        "loader",
        "process",
        *(f"after pass {number}" for number in AFTER_PASSES),
        title="MiB: peak resident / anonymous / private part of it",
    )
    for loader in (OURS, ORDINARY):
        result = in_fresh_process(args.rounds, "passes", loader)
        for process in ("main", "worker"):
            cells = [result[f"{process} {number}"] for number in AFTER_PASSES]
            table.add_row(
                loader,
                process,
                *(" / ".join(f"{cell[part]:.0f}" for part in ("peak", "anonymous", "private")) for cell in cells),
            )
    return table


def names_table(args: argparse.Namespace) -> Table:
    """Memory of file names."""
    table = Table("names held as", "anonymous", "private part", title=f"MiB that {args.names:,} names take in a worker")
    for holder in HOLDERS:
        many, few = (in_fresh_process(args.rounds, "names", holder, str(n))["worker"] for n in (args.names, FEW))
        table.add_row(holder, *(f"{many[name] - few[name]:.1f}" for name in ("anonymous", "private")))
    return table


def imagenet_names(num_files: int) -> Iterator[str]:
    """Names like ImageNet's."""
    return (
        f"train/n{number // 1282:08d}/n{number // 1282:08d}_{number % 1282:05d}.JPEG" for number in range(num_files)
    )


def make_record(path: Path, num_files: int) -> None:
    """Writes the record of a folder as large as ImageNet, without files."""
    names = Names(imagenet_names(num_files))
    numbers = np.arange(num_files)
    times = 1_700_000_000_000_000_000 + numbers
    records = Records(
        names,
        sizes=100_000 + numbers,
        mtimes=times,
        hashes=np.array([f"{size}-{time}".encode() for size, time in enumerate(times.tolist(), start=100_000)]),
        shapes=np.stack([300 + numbers % 500, 300 + numbers % 400], axis=1).astype(np.int32),
    )
    index = FolderIndex(
        root=path.parent,
        path=path,
        options={"val_share": 0.0},
        layout="as published",
        classes=[f"n{number:08d}" for number in range(num_files // 1282 + 1)],
        class_level=0,
        files=records,
        unreadable=Records.of({}),
        splits={
            "train": Selection(names, numbers[num_files // 26 :]),
            "test": Selection(names, numbers[: num_files // 26]),
        },
        file_labels=(numbers // 1282).astype(np.int32),
        lists_labels=True,
    )
    save_index(index)


def measure_record(path: Path) -> dict[str, dict[str, float]]:
    """Seconds and MiB that opening a record takes in this process, alone and with all that a datamodule sets up."""
    data = ImageFolder(str(path.parent.parent), num_workers=0, index_dir=str(path.parent.parent))
    before = memory("self")
    result = {}
    for name, open_it in {"record": partial(load_index, path), "datamodule": partial(data.setup, "fit")}.items():
        start = time.perf_counter()
        kept = open_it()  # noqa: F841 (counts as memory)
        after = memory("self")
        added = {part: after[part] - before[part] for part in ("resident", "anonymous")}
        result[name] = {"seconds": time.perf_counter() - start, **added}
    return result


def make_shards(path: Path, num_files: int) -> None:
    """Writes shards of as many images as ImageNet has, of one byte each."""
    files = {"train": (list(imagenet_names(num_files)), [number // 1282 for number in range(num_files)])}
    classes = [f"n{number:08d}" for number in range(num_files // 1282 + 1)]
    colours = ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    write_shards(path, files, lambda file: b"x", class_names=classes, statistics=colours, shard_bytes=2**26, seed=0)


def measure_shards(path: Path) -> dict[str, dict[str, float]]:
    """Seconds and MiB that shards take in this process, with all that a datamodule sets up, beside litdata itself."""
    litdata()
    data = Shards(str(path), num_workers=0)
    before, start = memory("self"), time.perf_counter()
    data.setup("fit")
    seconds, after = time.perf_counter() - start, memory("self")
    return {"shards": {"seconds": seconds, **{part: after[part] - before[part] for part in ("resident", "anonymous")}}}


def record_table(args: argparse.Namespace) -> Table:
    """Time and memory of a record."""
    table = Table("opened", "s", "MiB resident", "of it its own", title=f"record of {args.record:,} files")
    with tempfile.TemporaryDirectory() as folder:
        path = folder_in(folder, Path(folder)) / "splits.npz"
        make_record(path, args.record)
        shards = Path(folder) / "shards"
        make_shards(shards, args.record)
        measured = in_fresh_process(args.rounds, "record", str(path))
        measured |= in_fresh_process(args.rounds, "shards", str(shards))
        for name, found in measured.items():
            table.add_row(name, *(f"{found[part]:.2f}" for part in ("seconds", "resident", "anonymous")))
        table.caption = f"{path.stat().st_size / 1e6:.0f} MB on disk"
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=8000)
    parser.add_argument("--names", type=int, default=450_000)
    parser.add_argument(
        "--workers", type=int, default=1, help="with more than one, batches come in bursts, which blurs the borders"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", type=int, help="number of files of a record to open, instead of all else")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.items % args.batch or args.workers < 1:
        parser.error("--items must be a multiple of --batch, and --workers at least 1")
    if args.one:
        what, name, *number = args.one
        if what in ("record", "shards"):
            print(json.dumps((measure_record if what == "record" else measure_shards)(Path(name))))
            return
        print(json.dumps(measure_names(args, name, int(*number)) if what == "names" else measure_passes(args, name)))
        return
    console = Console()
    for table in (record_table,) if args.record else (borders_table, passes_table, names_table):
        console.print(table(args))
    console.print(
        f"{machine()}; {args.workers} worker(s); medians of {args.rounds} rounds with {NUM_BORDERS} borders each"
    )


if __name__ == "__main__":
    main()
