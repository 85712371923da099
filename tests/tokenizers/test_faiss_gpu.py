"""The probe of faiss on GPUs, against fakes that abort, hang, lie and work."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_splitmask.tokenizers import faiss_gpu
from lit_splitmask.tokenizers.faiss_gpu import FaissSearch, faiss_gpu_works, probe_faiss

FAKE = """
import os, sys, time
import numpy as np

broken = {broken!r}

class IndexFlatIP:
    def __init__(self, dimensions):
        self.words = np.empty((0, dimensions), np.float32)
    def add(self, words):
        self.words = words
    def search(self, points, number):
        scores = points @ self.words.T
        nearest = scores.argmax(axis=1)[:, None]
        if broken == "wrong words" and self.gpu == 1:
            nearest = np.zeros_like(nearest)
        found = np.take_along_axis(scores, nearest, 1)
        return (found * 2 if broken == "wrong similarities" else found), nearest

class StandardGpuResources:
    def __init__(self):
        if broken == "abort":
            sys.stderr.write("Faiss assertion 'err == cudaSuccess' failed\\n")
            os.abort()
        if broken == "hang":
            time.sleep(60)
        if broken == "exit":
            os._exit(0)
        if broken == "error":
            raise RuntimeError("CUDA error 209: no kernel image")

def get_num_gpus():
    return 0 if broken == "none" else 2

def index_cpu_to_gpu(resources, gpu, index):
    index.gpu = gpu
    return index
"""


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str = "") -> None:
    """Puts a faiss with two GPUs, broken in some way, before the real one in the processes that are started."""
    (folder / "faiss.py").write_text(FAKE.format(broken=broken))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("abort", "signal 6"),
        ("exit", "ends early"),
        ("error", "no kernel image"),
        ("none", "sees none"),
        ("wrong words", "GPU 1 finds wrong words"),
        ("wrong similarities", "GPU 0 computes wrong similarities"),
    ],
)
def test_a_faiss_that_fails_on_any_gpu_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, why: str
) -> None:
    fake(tmp_path, monkeypatch, broken)
    assert why in (probe_faiss() or "")


def test_a_faiss_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "hang")
    assert "does not answer within 1 seconds" in (probe_faiss(seconds=1) or "")


def test_a_faiss_that_works_on_every_gpu_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    faiss_gpu_works.cache_clear()
    try:
        assert faiss_gpu_works()
    finally:
        faiss_gpu_works.cache_clear()


def test_without_a_gpu_nothing_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(faiss_gpu, "probe_faiss", lambda: pytest.fail("faiss was probed"))
    faiss_gpu_works.cache_clear()
    assert not faiss_gpu_works()
    faiss_gpu_works.cache_clear()


def test_one_index_and_one_set_of_resources_serve_all_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    made: list[str] = []

    def to_gpus(resources: list[str], index: faiss.IndexFlatIP, gpus: list[int]) -> faiss.IndexFlatIP:
        assert len(resources) == len(gpus) == 2
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: made.append("resources"))
    monkeypatch.setattr(faiss, "index_cpu_to_gpu_multiple_py", to_gpus)
    points = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32))
    search = FaissSearch(8)
    for words in (points[:5], points[5:12]):
        search.use(words)
        similarity, nearest = search(points)
        assert torch.equal(nearest, (points @ words.t()).argmax(dim=1))
        torch.testing.assert_close(similarity, (points @ words.t()).max(dim=1).values)
    assert len(made) == 2
