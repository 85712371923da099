"""Large tensors reuse freed memory, and workers do not hold on to it."""

import os
import platform
import subprocess
import sys

import pytest

FORKED = """
import torch
from torch.utils.data import DataLoader, Dataset
from lit_splitmask.allocator import drop_freed_memory, keep_freed_memory

class Resident(Dataset):
    def __len__(self):
        return 1
    def __getitem__(self, index):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) // 1024

keep_freed_memory()
for _ in range(3):
    kept = [torch.ones(2**24) for _ in range(8)]  # 512 MiB
    del kept
for begin in (None, lambda worker: drop_freed_memory()):
    print(int(next(iter(DataLoader(Resident(), num_workers=1, worker_init_fn=begin, multiprocessing_context="fork")))))
"""

SCRIPT = """
import resource, sys, torch
from lit_splitmask.allocator import keep_freed_memory

def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

faults()
before = faults()
keep_freed_memory()
for _ in range(4):  # the heap grows
    faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("own", [{}, {"MALLOC_ARENA_MAX": "4"}])
def test_freed_memory_is_reused_unless_the_environment_configures_the_allocator(own: dict[str, str]) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=inherited | own, check=True
    )
    before, after = map(int, done.stdout.split())
    assert before > 100  # pages or huge pages of four tensors of 64 MiB
    assert (after < before / 10) == (own == {})


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_worker_does_not_hold_on_to_memory_that_its_parent_has_freed() -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, env=inherited, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before - 400
