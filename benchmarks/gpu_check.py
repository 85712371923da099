"""All checks that need a GPU, in one call of less than ten minutes: the tests marked gpu, and the benchmarks.

Each check is a program of its own with a time limit; one that fails or takes too long is reported, and the others go on. All
output goes to ``--out`` as well.

    make gpu-check
    python benchmarks/gpu_check.py --only tests kmeans
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timing import machine

HERE = Path(__file__).parent

TEN_MINUTES = 600.0


@dataclass(frozen=True)
class Check:
    """A program that checks or measures one thing.

    Attributes:
        arguments: Of Python.
        limit: Seconds after which it is stopped.
    """

    arguments: tuple[str, ...]
    limit: float


def benchmark(name: str, arguments: str, limit: float) -> Check:
    """A benchmark of this folder."""
    return Check((str(HERE / f"{name}.py"), *arguments.split()), limit)


CHECKS = {
    "tests": Check(("-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers -rs"), 100),
    "kmeans": benchmark("kmeans", "--points 3000000 --words 8192 --iterations 25", 110),
    "steps of ViT-S": benchmark("step_time", "--size small --batch 128 --precision bf16 --rounds 3", 80),
    "steps of ViT-B": benchmark(
        "step_time",
        "--size base --batch 64 --precision bf16 --rounds 3 --methods SplitMask MAE BEiT",
        60,
    ),
    "fit": benchmark("fit_speed", "--size small base --batch 128 --steps 15", 130),
    "detection": benchmark("dense", "--height 800 --width 1216 --batch 2 --precision bf16 --rounds 3", 60),
    "loader": benchmark("loader", "--synthetic 1000 --rounds 1 --workers 8", 50),
}


def run(check: Check) -> tuple[str, float, str]:
    """Runs a check: its outcome, its seconds, and all that it printed, also until it was stopped."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, *check.arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=HERE.parent,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        try:
            code = process.wait(check.limit)
            outcome = "passed" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {check.limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own processes too, which would hold the GPU
            process.wait()
        output.seek(0)
        return outcome, time.perf_counter() - start, output.read()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(CHECKS), choices=list(CHECKS))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check.txt"))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("No GPU that torch can use was found (torch.cuda.is_available() is False): nothing was checked.")
        return 2
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table = Table("check", "outcome", "s", title=f"{machine('cuda')}, torch {torch.__version__}")
    failed = False
    with args.out.open("w", encoding="utf-8") as file:
        for name in args.only:
            outcome, seconds, printed = run(CHECKS[name])
            failed |= outcome != "passed"
            table.add_row(name, outcome, f"{seconds:.0f}")
            for stream in (sys.stdout, file):
                print(f"== {name}: {outcome}\n{printed}", file=stream, flush=True)
        for console in (Console(width=110), Console(width=110, file=file)):
            console.print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
