"""Work of process 0 that the others wait for."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lit_splitmask.distributed import after_process_zero, rank


def waits(number: int, folder: Path) -> None:
    """Runs in each of two processes, whose group gives up after half a second: first with work that succeeds, then not."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=2, timeout=timedelta(seconds=20))
    dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))._set_default_timeout(
        timedelta(seconds=0.5)
    )
    words = torch.full((3,), float(number))

    def work() -> None:
        assert rank() == 0
        time.sleep(1.5)
        words.fill_(7)

    after_process_zero(work, words)
    assert words.tolist() == [7, 7, 7]

    def fail() -> None:
        raise ValueError("no words")

    start = time.monotonic()
    with pytest.raises(ValueError if number == 0 else RuntimeError):
        after_process_zero(fail, words)
    assert time.monotonic() - start < 15
    (folder / f"done{number}").touch()


def test_processes_wait_longer_than_their_group_does_and_end_when_process_zero_fails(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(waits, (tmp_path,), nprocs=2, start_method="fork")  # quick: imports nothing
    assert len(list(tmp_path.glob("done*"))) == 2


def test_a_single_process_does_the_work_itself() -> None:
    words = torch.zeros(2)
    after_process_zero(lambda: words.fill_(3), words)
    assert words.tolist() == [3, 3]
