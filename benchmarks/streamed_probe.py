"""Time and peak memory of the streamed linear probe and k-NN at ImageNet's size, on made-up features in files.

One pass of the linear probe with all weight decays side by side and one with a single one; the real probe makes 30 of each. The
peak is what the process adds to its memory before the features are written.

    python benchmarks/streamed_probe.py --images 1281167 --queries 2000
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from step_time import high_water_mark
from timing import machine

from lit_splitmask import streamed_probing
from lit_splitmask.streamed_probing import FeatureFiles, StreamedLinearProbe, streamed_knn

ROWS = 16_384


def make_features(folder: str, args: argparse.Namespace) -> tuple[FeatureFiles, torch.Tensor]:
    """Features around one centre per class, in files; returns those of the queries as well."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(args.classes, args.width, generator=generator)

    def draw(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(args.classes, (number,), generator=generator)
        return centres[labels] + 2 * torch.randn(number, args.width, generator=generator), labels

    files = FeatureFiles(folder, [args.width], args.images)
    for start in range(0, args.images, ROWS):
        features, labels = draw(min(ROWS, args.images - start))
        files.add([features], labels)
    return files, draw(args.queries)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    streamed_probing.PASSES, streamed_probing.LEAST_STEPS = 1, 1
    table = Table("", "s", "peak, MiB", title=f"{args.images:,} images, width {args.width}, {args.classes} classes")
    with tempfile.TemporaryDirectory() as folder:
        before = high_water_mark()
        files, queries = make_features(folder, args)
        tasks: dict[str, Callable[[], object]] = {
            "linear, one pass of each kind": lambda: StreamedLinearProbe(files, 0, args.classes, device=args.device),
            f"k-NN of {args.queries:,} queries": lambda: streamed_knn(
                files, 0, queries, args.classes, device=args.device
            ),
        }
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            table.add_row(name, f"{time.perf_counter() - start:.1f}", f"{high_water_mark() - before:,.0f}")
    Console(width=100).print(table, machine(args.device))


if __name__ == "__main__":
    main()
