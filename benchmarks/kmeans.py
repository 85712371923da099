"""Time per iteration and peak memory of the k-means tokenizer for growing numbers of points and words.

With ``--images`` it compares whole fits on patches of real images with faiss's k-means, by time and by inertia (mean of
1 - cosine over all the points).

A product law (seconds = c · points · words) is fitted to the largest sizes and extrapolated to the paper's 3 million points and
8,192 words. Each size runs in a separate process, so that its peak memory can be measured.

    python benchmarks/kmeans.py
    python benchmarks/kmeans.py --images DIR --points 100000 --words 1024 --iterations 25
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import machine

from lit_splitmask.tokenizers import KMeans
from lit_splitmask.tokenizers.faiss_gpu import faiss_gpu_works
from lit_splitmask.tokenizers.kmeans import spherical_kmeans

PAPER_POINTS, PAPER_WORDS, PAPER_ITERATIONS = 3_000_000, 8192, 25
DIMENSIONS = 192
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def measure(num_points: int, num_words: int, iterations: int) -> dict[str, float]:
    """Seconds per iteration after a warm-up, and the peak of the resident set in MiB above that before the points."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    points = np.random.default_rng(0).standard_normal((num_points, DIMENSIONS), dtype=np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    spherical_kmeans(points[: 2 * num_words], num_words, 1, 0, DEVICE)
    start = time.perf_counter()
    spherical_kmeans(points, num_words, iterations, 0, DEVICE)
    seconds = (time.perf_counter() - start) / iterations
    return {"seconds": seconds, "mebibytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def image_patches(folder: Path, number: int) -> np.ndarray:
    """Normalised patches of the centre crops of images, half of 224 px: (number, 192) float32."""
    views = []
    for file in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
        image = Image.open(file).convert("RGB")
        scale = 112 / min(image.size)
        image = image.resize([max(112, round(side * scale)) for side in image.size])  # type: ignore[arg-type]
        views.append(torch.from_numpy(np.array(image.crop((0, 0, 112, 112)))).permute(2, 0, 1))
        if 196 * len(views) >= number * 1.02:
            break
    patches = KMeans(8, vocabulary=2).patches(torch.stack(views) / 255).flatten(0, 1)
    return F.normalize(patches[patches.norm(dim=1) > 0.1], dim=1)[:number].numpy()


def by_faiss(points: np.ndarray, num_words: int, iterations: int, seed: int) -> np.ndarray:
    """The fit of earlier versions: faiss from random points, called once per iteration to show progress."""
    import faiss

    words = points[np.sort(np.random.default_rng(seed).choice(len(points), num_words, replace=False))]
    for _ in range(iterations):
        kmeans = faiss.Kmeans(
            points.shape[1],
            num_words,
            niter=1,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=len(points) // num_words + 1,
        )
        kmeans.train(points, init_centroids=words)
        words = np.array(kmeans.centroids)
    return words


def compare(points: np.ndarray, num_words: int, iterations: int, rounds: int) -> None:
    """Prints seconds, processor seconds and inertia of fits by faiss and by this project, alternating, another seed per round."""
    fits: dict[str, Callable[[int], np.ndarray]] = {
        "faiss": lambda seed: by_faiss(points, num_words, iterations, seed),
        "this project": lambda seed: spherical_kmeans(points, num_words, iterations, seed, DEVICE),
    }
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in fits}
    for number in range(rounds):
        for name, fit in fits.items():
            start, busy = time.perf_counter(), time.process_time()
            words = fit(number)
            seconds, busy = time.perf_counter() - start, time.process_time() - busy
            inertia = statistics.fmean(float(1 - (rows @ words.T).max(1).mean()) for rows in np.array_split(points, 50))
            results[name].append((seconds, busy, inertia))
    table = Table("", "s", "processor s", "ratio of processor s", "inertia", title=f"{points.shape}, {num_words} words")
    for name, rows in results.items():
        seconds, busy, inertia = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(a[1] / b[1] for a, b in zip(results["faiss"], rows, strict=True))
        table.add_row(name, f"{seconds:.1f}", f"{busy:.1f}", f"{ratio:.2f}", f"{inertia:.5f}")
    Console().print(table, f"{iterations} iterations, {rounds} rounds, {machine(DEVICE)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--words", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--images", type=Path, help="folder of images: compare whole fits on their patches with faiss")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.iterations)))
        return
    if args.images:
        compare(image_patches(args.images, args.points[0]), args.words[0], args.iterations, args.rounds)
        return
    side = "faiss on the GPU" if DEVICE == "cuda" and faiss_gpu_works() else f"torch on the {DEVICE.upper()}"
    table = Table(
        "points",
        "words",
        "s per iteration",
        "ns per point and word",
        "peak MiB",
        "points alone, MiB",
        title=side,
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
