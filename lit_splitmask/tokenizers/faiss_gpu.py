"""Whether faiss can use the GPUs, tested where a crash does no harm, and the nearest words by faiss on all of them."""

import logging
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

PROBE_SECONDS = 120.0
"""Time for the probe, most of it for importing faiss and for starting the drivers of all GPUs."""

PROBE = """
import faiss
import numpy as np

points = np.random.default_rng(0).standard_normal((256, 24)).astype(np.float32)
words = points[::8].copy()
scores = points @ words.T
number = faiss.get_num_gpus()
for gpu in range(number):
    index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), gpu, faiss.IndexFlatIP(24))
    index.add(words)
    found, nearest = index.search(points, 1)
    assert nearest.shape == (256, 1) and (nearest[:, 0] == scores.argmax(axis=1)).all(), f"GPU {gpu} finds wrong words"
    assert np.allclose(found[:, 0], scores.max(axis=1), rtol=0.01), f"GPU {gpu} computes wrong similarities"
print("usable GPUs:", number)
"""
"""A small search on every GPU that faiss sees, checked by NumPy. faiss *aborts* the process where CUDA fails."""


def probe_faiss(seconds: float = PROBE_SECONDS) -> str | None:
    """Lets faiss search on every visible GPU, in a process of its own.

    Args:
        seconds: Time that it may take.

    Returns:
        Why faiss cannot use the GPUs, in a few words; None if it can use all of them.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"it does not answer within {seconds:g} seconds"
    if done.returncode < 0:
        return f"it ends its process by signal {-done.returncode}"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode > 0:
        return said[-1] if said else f"its process ends with code {done.returncode}"
    lines = done.stdout.splitlines()
    if not lines or not lines[-1].startswith("usable GPUs: "):
        return "its process ends early"
    return "it sees none" if lines[-1] == "usable GPUs: 0" else None


@cache
def faiss_gpu_works() -> bool:
    """Whether faiss can use the GPUs that torch sees; tried once, on every one of them."""
    if torch.cuda.device_count() == 0:
        return False
    problem = probe_faiss()
    if problem is not None:
        log.info("faiss cannot use the GPU (%s), so k-means runs on it by torch.", problem)
    return problem is None


class FaissSearch:
    """The most similar word of each point by faiss, on all visible GPUs. Index and memory on the GPUs are made once.

    Args:
        dimensions: d.
    """

    def __init__(self, dimensions: int) -> None:
        import faiss

        gpus = list(range(faiss.get_num_gpus()))
        self._resources = [faiss.StandardGpuResources() for _ in gpus]  # must live as long as the index
        flat = faiss.IndexFlatIP(dimensions)
        self._index: Any = faiss.index_cpu_to_gpu_multiple_py(self._resources, flat, gpus=gpus)

    def use(self, words: Tensor) -> None:
        """Sets the words to search, (V, d) float32."""
        self._index.reset()
        self._index.add(np.ascontiguousarray(words.cpu().numpy()))

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Similarity (n,) float32 and index (n,) int64 of the most similar word of each point (n, d) float32."""
        similarity, nearest = self._index.search(np.ascontiguousarray(points.cpu().numpy()), 1)
        return torch.from_numpy(similarity[:, 0]), torch.from_numpy(nearest[:, 0])
