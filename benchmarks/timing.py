"""Shared by the benchmarks: alternating timings, medians, and a description of the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable

import torch


def synchronise(device: str) -> None:
    """Waits until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def alternate(
    tasks: dict[str, Callable[[], object]], rounds: int, *, warm_up: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each task in each round.

    The tasks take turns, so other programs on the machine disturb all of them equally: ratios of medians within one run are
    comparable even if absolute times are not.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(warm_up + rounds):
        for name, task in tasks.items():
            synchronise(device)
            start = time.perf_counter()
            task()
            synchronise(device)
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(seconds: list[float], reference: list[float]) -> float:
    """Median of the ratios of neighbouring measurements."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def machine(device: str = "cpu") -> str:
    """The name of the processor or GPU, with cores, threads and torch's version."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or "CPU"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
