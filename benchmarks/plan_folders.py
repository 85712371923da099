"""Listing and understanding a folder of many images, against the plain walk that did neither.

python benchmarks/plan_folders.py
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from timing import alternate, machine, median_ratio

from lit_splitmask.datamodules.recognise import recognise
from lit_splitmask.images.decode import IMAGE_EXTENSIONS
from lit_splitmask.images.layout import understand
from lit_splitmask.images.tree import Tree


def plain_walk(root: Path) -> list[str]:
    """All images of a folder, by os.walk and pathlib."""

    def walk() -> Iterator[str]:
        seen: set[str] = set()
        for folder, folders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            relative = Path(folder).relative_to(root)
            for name in names:
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS:
                    yield (relative / name).as_posix()

    return sorted(walk())


def make_folders(root: Path, num_files: int, num_folders: int) -> None:
    """Empty files with the names of images: class folders in train and val."""
    for folder in range(num_folders):
        path = root / ("val" if folder % 2 else "train") / f"class_{folder // 2:04d}"
        path.mkdir(parents=True)
        for number in range(num_files // num_folders):
            (path / f"IMG_{folder:04d}_{number:05d}.jpg").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    table = Table("", "median s", "ratio", title=f"{arguments.files:,} files in {arguments.folders:,} folders")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_folders(root, arguments.files, arguments.folders)
        found = Tree.read(root)
        assert found.images == plain_walk(root)
        seconds = alternate(
            {
                "plain walk": lambda: plain_walk(root),
                "walk, all kinds of files": lambda: Tree.read(root),
                "walk and layout": lambda: understand(root, tree=Tree.read(root)),
                "all that plan asks of a folder": lambda: recognise(root),
            },
            rounds=arguments.rounds,
        )
    for name, values in seconds.items():
        ratio = median_ratio(values, seconds["plain walk"])
        table.add_row(name, f"{statistics.median(values):.3f}", f"{ratio:.2f}")
    Console().print(table, f"{machine()}; medians of {arguments.rounds} alternating rounds")


if __name__ == "__main__":
    main()
