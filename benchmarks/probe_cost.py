"""Time and memory of the k-NN and the linear probe over many features, on one process and on two.

python benchmarks/probe_cost.py
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import torch
import torch.distributed as dist
from lightning import LightningModule
from rich.console import Console
from rich.table import Table

from lit_splitmask.callbacks import KNN, Linear
from lit_splitmask.selection.measuring import measure
from lit_splitmask.selection.snapshot import ImageSubset, Snapshot


class Clusters(Snapshot):
    """Random features in one cluster per class, and a tenth as many held-out ones."""

    def __init__(self, num: int, width: int, num_classes: int) -> None:
        no_images = ImageSubset([], 0)
        super().__init__(LightningModule(), no_images, no_images, num_classes, seed=0)
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(num_classes, (num + num // 10,), generator=generator)
        features = 0.25 * torch.randn(num_classes, width, generator=generator)[labels]
        features += torch.randn(len(labels), width, generator=generator)
        self.train_features = (features[:num], labels[:num])
        self.held_out_features = (features[num:], labels[num:])


def one_process(args: argparse.Namespace) -> None:
    """Measures both probes in this process and prints them as JSON."""
    torch.set_num_threads(args.threads)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    snapshot = Clusters(args.images, args.width, args.classes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for signal in (KNN(), Linear()):
        started = time.perf_counter()
        found = measure([signal], snapshot)
        seconds = time.perf_counter() - started
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if os.environ.get("RANK", "0") == "0":
            row = {
                "signal": signal.name,
                "accuracy": found.values[signal.name],
                "seconds": seconds,
                "mib": more / 1024,
            }
            print(json.dumps(row), flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1, help="threads per process")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_process(args)
        return
    table = Table(
        "processes", "probe", "seconds", "accuracy", "memory on top of the features, MiB per process (peak so far)"
    )
    settings = [f"--{name}={getattr(args, name)}" for name in ("images", "width", "classes", "threads")]
    for processes in (1, 2):
        start = ["-m", "torch.distributed.run", "--nproc-per-node=2"] if processes == 2 else []
        command = [sys.executable, *start, __file__, "--one", *settings]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            row = json.loads(line)
            cells = [f"{row['seconds']:.1f}", f"{row['accuracy']:.4f}", f"{row['mib']:,.0f}"]
            table.add_row(str(processes), row["signal"], *cells)
    features = args.images * args.width * 4 / 2**20
    Console(width=120).print(table, f"The {args.images:,} features of width {args.width} take {features:.0f} MiB.")


if __name__ == "__main__":
    main()
