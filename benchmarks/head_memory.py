"""Peak memory and time of the head that predicts visual words, against plain logits and cross-entropy.

Forward and backward over the hidden patches of a batch: 64 images × 2 halves × 98 patches, width 384, 8,192 words. Each
measurement runs in a separate process; on a CPU, memory is the peak of the resident set minus its peak before the loss.

    python benchmarks/head_memory.py --batch 64
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from timing import machine, synchronise
from torch import Tensor

from lit_splitmask.losses import word_cross_entropy


def plain(states: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> Tensor:
    """Computes all logits at a time."""
    return F.cross_entropy(F.linear(states, weight, bias), words)


def chunked(states: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> Tensor:
    """The head of this project."""
    return word_cross_entropy(states, weight, bias, words)[0]


HEADS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {"plain logits": plain, "this project": chunked}


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Peak memory in MiB above that at the start, and seconds, of one head in this process."""
    device, num_masked = args.device, args.batch * 2 * args.masked
    torch.manual_seed(0)
    states = torch.randn(num_masked, args.width, device=device, requires_grad=True)
    weight = torch.randn(args.words, args.width, device=device, requires_grad=True)
    bias = torch.zeros(args.words, device=device, requires_grad=True)
    words = torch.randint(args.words, (num_masked,), device=device)
    head = HEADS[args.head]
    few = states[:64].detach().requires_grad_()
    head(few, weight, bias, words[:64]).backward()  # loads the libraries' code and buffers
    weight.grad = bias.grad = None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    head(states, weight, bias, words).backward()
    synchronise(device)
    seconds = time.perf_counter() - start
    peak = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {"mebibytes": (peak - before) / 2**20, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--masked", type=int, default=98, help="hidden patches per half")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--words", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--head", choices=list(HEADS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.head:
        print(json.dumps(measure(args)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in HEADS}
    for _ in range(args.rounds):
        for name in HEADS:
            command = [sys.executable, __file__, *sys.argv[1:], "--head", name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[name].append(json.loads(output.splitlines()[-1]))
    table = Table(
        "head",
        "peak MiB",
        "ratio",
        "median s",
        "ratio",
        title=f"{args.batch}×2×{args.masked} patches, {args.words} words",
    )
    base = {key: statistics.median(r[key] for r in results["plain logits"]) for key in ("mebibytes", "seconds")}
    for name, rounds in results.items():
        mine = {key: statistics.median(r[key] for r in rounds) for key in base}
        table.add_row(
            name,
            f"{mine['mebibytes']:.0f}",
            f"{mine['mebibytes'] / base['mebibytes']:.2f}",
            f"{mine['seconds']:.2f}",
            f"{mine['seconds'] / base['seconds']:.2f}",
        )
    Console().print(table, f"{machine(args.device)}; medians of {args.rounds} alternating rounds")


if __name__ == "__main__":
    main()
