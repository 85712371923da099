"""Images in a few large files, on a disk or in a bucket: litdata's format, with a record of names, labels and splits."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.errors import UserError
from lit_splitmask.files import is_remote
from lit_splitmask.images.decode import decode
from lit_splitmask.images.names import Names
from lit_splitmask.images.statistics import Colour
from lit_splitmask.images.window import Window, parse_window

RECORD = "record"
"""Subfolder of the record, which is itself a shard, so that it comes from wherever the others are."""

VERSION = 1

_UNLIMITED = 2**60
"""For litdata, which would delete a copy when its reader moves to another shard: here all copies fit, or none is made."""


@dataclass(frozen=True)
class ShardedSplit:
    """The images of a split, in the order in which they are stored.

    Attributes:
        start: The number of the first one. All images are numbered in the order in which they are stored, split by split.
        labels: (n,) int64, their labels; -1 without one.
        shards: Number of images in each shard.
        num_bytes: Size of all shards.
    """

    start: int
    labels: np.ndarray
    shards: list[int]
    num_bytes: int

    @property
    def numbers(self) -> np.ndarray:
        """(n,) the numbers of the images."""
        return np.arange(self.start, self.start + len(self.labels))


@dataclass(frozen=True)
class ShardRecord:
    """What a folder of shards holds.

    Attributes:
        names: The images' names, by number.
        by_name: (N,) the numbers of all images, in the order of their names.
        splits: The images of each split.
        class_names: Class names by label; empty without labels.
        mean, std: Mean and standard deviation of the pixels, in [0, 1].
        window: The values of images of more than 8 bits that become black and white; None without a window.
    """

    names: Names
    by_name: np.ndarray
    splits: Mapping[str, ShardedSplit]
    class_names: list[str]
    mean: Colour
    std: Colour
    window: Window | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ShardRecord":
        """The record that :func:`write_shards` wrote."""
        files = [file for split in stored["splits"].values() for file in split["files"]]
        by_name = stored.get("by_name")  # earlier versions do not have it
        splits, start = {}, 0
        for name, split in stored["splits"].items():
            labels = np.array(split["labels"], dtype=np.int64)
            splits[name] = ShardedSplit(start, labels, split["shards"], split["num_bytes"])
            start += len(labels)
        mean, std = (tuple(stored[name]) for name in ("mean", "std"))
        return cls(
            Names(files),
            np.array(_order(files) if by_name is None else by_name, dtype=np.int64),
            splits,
            stored["class_names"],
            mean,  # type: ignore[arg-type]
            std,  # type: ignore[arg-type]
            parse_window(stored.get("window")),
        )


@dataclass(frozen=True)
class ShardPlace:
    """Where shards are, and how they are reached.

    Attributes:
        root: A folder, or the address of one: ``s3://bucket/folder``.
        cache_dir: Folder of copies of remote shards.
        storage_options: What litdata takes to reach a bucket, such as ``{"endpoint_url": …}``.
    """

    root: str
    cache_dir: str
    storage_options: dict[str, Any] | None = None

    def open(self, part: str) -> Any:
        """litdata's dataset of a split or of the record.

        Raises:
            UserError: litdata is not installed.
        """
        streaming = litdata()
        folder = f"{self.root.rstrip('/')}/{part}"
        cache = f"{self.cache_dir}/{part}" if is_remote(self.root) else None
        return streaming.StreamingDataset(
            folder, cache_dir=cache, max_cache_size=_UNLIMITED, storage_options=self.storage_options
        )

    def read_record(self) -> ShardRecord:
        """The record of the shards.

        Raises:
            UserError: There is none, it cannot be reached, it was written by a later version, or litdata is not installed.
        """
        litdata()
        try:
            stored = json.loads(bytes(self.open(RECORD)[0]["json"]))
        except Exception as error:  # each kind of storage has its own exceptions
            raise UserError(
                f"{self.root} holds no shards that can be read ({type(error).__name__}: {error}): give the folder that "
                "lit-splitmask shard wrote, or the address of a copy of it, and check that this machine has access to it."
            ) from error
        if stored["version"] != VERSION:
            raise UserError(
                f"The shards in {self.root} have format {stored['version']}, and this version reads {VERSION}: write them again."
            )
        return ShardRecord.from_json(stored)


def _order(files: Sequence[str]) -> list[int]:
    return sorted(range(len(files)), key=files.__getitem__)


class ShardReader:
    """Reads images of shards by number.

    Args:
        place: Where the shards are.
        record: What they hold.
        draft_size: Side down to which JPEGs may be decoded at a reduced size, in pixels.
        cache_bytes: Shards of a split that are larger together are not copied to this machine: each image is fetched alone.
        window: See :func:`decode`.
    """

    def __init__(
        self, place: ShardPlace, record: ShardRecord, *, draft_size: int, cache_bytes: float, window: Window | None
    ) -> None:
        self.place, self.draft_size, self.window, self.names = place, draft_size, window, record.names
        self.starts = {name: split.start for name, split in record.splits.items()}
        self.copied = {name: split.num_bytes <= cache_bytes for name, split in record.splits.items()}
        self._datasets: dict[tuple[int, str], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_datasets": {}}

    def __call__(self, number: int) -> np.ndarray:
        """Reads an image: (H, W, 3) uint8.

        Raises:
            DecodeError: The image is damaged.
        """
        part = [name for name, start in self.starts.items() if start <= number][-1]
        data = bytes(self._item(part, number - self.starts[part])["image"])
        return decode(self.names[number], self.draft_size, data, self.window)

    def _item(self, part: str, number: int) -> Any:
        key = (os.getpid(), part)  # a forked worker has no use for its parent's download threads
        if key in self._datasets:
            return self._datasets[key][number]
        dataset = self._datasets[key] = self.place.open(part)
        item = dataset[number]
        dataset.on_demand_bytes = not self.copied[part]
        return item


def shard_order(generator: np.random.Generator, num_images: int, *, shards: np.ndarray, together: int) -> np.ndarray:
    """A random order of images that takes them from a few shards at a time.

    Args:
        generator: The source of randomness.
        num_images: Number of images.
        shards: (num_images,) the shard of each image.
        together: Number of shards that are read at a time, in random groups.

    Returns:
        (num_images,) a permutation of the images' indices.
    """
    _, shard = np.unique(shards, return_inverse=True)
    group = generator.permutation(shard.max() + 1) // together
    return np.lexsort((generator.random(num_images), group[shard]))


def write_shards(
    out: Path,
    files: Mapping[str, tuple[Sequence[str], Sequence[int]]],
    read: Callable[[str], bytes],
    *,
    class_names: Sequence[str],
    statistics: tuple[Colour, Colour],
    window: Window | None = None,
    shard_bytes: int,
    seed: int,
) -> ShardRecord:
    """Writes images as they are, with their record last: a folder without one was not finished.

    Args:
        out: The folder; it must not exist, or be empty.
        files: Names and labels of the images of each split. Those of ``train`` are stored in random order.
        read: Reads a file by its name.
        class_names: Class names by label.
        statistics: Mean and standard deviation of the pixels.
        window: The values of images of more than 8 bits that become black and white.
        shard_bytes: Size of a shard.
        seed: Seed of the order.

    Raises:
        UserError: The folder is not empty, or litdata is not installed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: give another folder with --out DIR.")
    splits: dict[str, dict[str, Any]] = {}
    for name, (names, labels) in files.items():
        order = list(range(len(names)))
        if name == "train":
            order = np.random.default_rng(seed).permutation(len(names)).tolist()
        stored = [names[index] for index in order]
        sizes, num_bytes = _write(out / name, ({"image": read(file)} for file in stored), shard_bytes)
        splits[name] = {
            "files": stored,
            "labels": [int(labels[index]) for index in order],
            "shards": sizes,
            "num_bytes": num_bytes,
        }
    record = {
        "version": VERSION,
        "splits": splits,
        "by_name": _order([file for split in splits.values() for file in split["files"]]),
        "class_names": list(class_names),
        "mean": statistics[0],
        "std": statistics[1],
        "window": window,
    }
    _write(out / RECORD, [{"json": json.dumps(record).encode()}], shard_bytes)
    return ShardRecord.from_json(record)


def _write(folder: Path, items: Iterable[dict[str, bytes]], shard_bytes: int) -> tuple[list[int], int]:
    """Writes a split; the number of images in each shard, and the size of all."""
    litdata()
    from litdata.streaming import Cache

    cache = Cache(input_dir=str(folder), chunk_bytes=shard_bytes, max_cache_size=_UNLIMITED)
    for number, item in enumerate(items):
        cache[number] = item
    cache.done()
    cache.merge()
    shards = json.loads((folder / "index.json").read_text())["chunks"]
    return [shard["chunk_size"] for shard in shards], sum(shard["chunk_bytes"] for shard in shards)


def litdata() -> Any:
    """The library.

    Raises:
        UserError: It is not installed.
    """
    try:
        import litdata
    except ModuleNotFoundError as error:
        if error.name != "litdata":
            raise
        raise UserError("Shards need litdata: pip install 'lit-splitmask[stream]'.") from None
    return litdata
