"""Time per iteration and peak memory of the k-means tokenizer for growing numbers of points and words.

A product law (seconds = c · points · words) is fitted to the largest sizes and extrapolated to the paper's 3 million points and
8,192 words. Each size runs in a separate process, so that its peak memory can be measured.

    python benchmarks/kmeans.py
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from timing import machine

from lit_splitmask.tokenizers.kmeans import faiss_gpu_works, spherical_kmeans

PAPER_POINTS, PAPER_WORDS, PAPER_ITERATIONS = 3_000_000, 8192, 25
DIMENSIONS = 192


def measure(num_points: int, num_words: int, iterations: int) -> dict[str, float]:
    """Seconds per iteration after a warm-up, and the peak of the resident set in MiB above that before the points."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    points = np.random.default_rng(0).standard_normal((num_points, DIMENSIONS), dtype=np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    spherical_kmeans(points[: 2 * num_words], num_words, 1, 0)
    start = time.perf_counter()
    spherical_kmeans(points, num_words, iterations, 0)
    seconds = (time.perf_counter() - start) / iterations
    return {"seconds": seconds, "mebibytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--words", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.iterations)))
        return
    side = "GPU" if faiss_gpu_works() else "CPU"
    table = Table(
        "points",
        "words",
        "s per iteration",
        "ns per point and word",
        "peak MiB",
        "points alone, MiB",
        title=f"faiss on the {side}",
    )
    costs = []
    for num_points in args.points:
        for num_words in args.words:
            command = [
                sys.executable,
                __file__,
                "--iterations",
                str(args.iterations),
                "--one",
                str(num_points),
                str(num_words),
            ]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result = json.loads(output.splitlines()[-1])
            cost = result["seconds"] / num_points / num_words
            costs.append(cost)
            table.add_row(
                f"{num_points:,}",
                f"{num_words:,}",
                f"{result['seconds']:.2f}",
                f"{cost * 1e9:.2f}",
                f"{result['mebibytes']:.0f}",
                f"{num_points * DIMENSIONS * 4 / 2**20:.0f}",
            )
    iteration = statistics.median(costs[-3:]) * PAPER_POINTS * PAPER_WORDS
    memory = PAPER_POINTS * DIMENSIONS * 4 / 2**30
    Console().print(
        table,
        f"{machine()}. Extrapolated to {PAPER_POINTS:,} × {PAPER_WORDS:,}: {iteration / 60:.1f} min per iteration, "
        f"{iteration * PAPER_ITERATIONS / 3600:.1f} h for {PAPER_ITERATIONS}, {memory:.2f} GiB of points (at most two copies).",
    )


if __name__ == "__main__":
    main()
