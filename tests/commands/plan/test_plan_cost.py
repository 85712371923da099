"""The cost of a training, timed on this machine."""

import logging
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_runs import PRETRAIN

from lit_splitmask import modules
from lit_splitmask.cli import main
from lit_splitmask.commands.plan import cost as plan_cost
from lit_splitmask.commands.plan.cost import Job, StepCost, images_to_time, time_alone, time_steps
from lit_splitmask.errors import UserError
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.tokenizers import KMeans

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

COST = StepCost("cpu", 4, 5, 0.25, 1000, 300, 80, parameters=10, weights_bytes=40, checkpoint_bytes=120)


@pytest.fixture
def job(work: Path) -> Job:
    """The tiny pre-training with four images per step, on a folder that is split."""
    load_or_make("shapes", "index", SplitOptions())
    arguments = ["--data.root=shapes", "--data.index_dir=index"]
    return Job(modules.Pretrain, arguments, yaml.safe_load(Path("pretrain.yaml").read_text()), 4, in_memory=True)


def test_timing_takes_real_steps_without_fitting_words(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KMeans, "fit", lambda *_: pytest.fail("the words were fitted"))
    seen: list[int] = []
    step = modules.Pretrain.training_step
    monkeypatch.setattr(
        modules.Pretrain,
        "training_step",
        lambda self, batch, batch_idx: (seen.append(len(batch["image"])), step(self, batch, batch_idx))[1],
    )
    cost = time_steps(job)
    assert seen == [4] * (plan_cost.WARMUP_STEPS + plan_cost.TIMED_STEPS)
    assert (cost.num_images, cost.num_steps, cost.device) == (4, plan_cost.TIMED_STEPS, "cpu")
    assert cost.seconds > 0
    assert cost.base_bytes > 2**26


def test_sizes_on_disk_are_those_of_a_real_run(job: Job) -> None:
    cost = time_steps(job)
    data = {**PRETRAIN["data"]["init_args"], "budget": {"steps": 1}, "num_epochs": 1}
    settings = {**PRETRAIN, "data": {**PRETRAIN["data"], "init_args": data}}
    Path("short.yaml").write_text(yaml.safe_dump(settings))
    assert main(["pretrain", "--recipe", "short.yaml", "--data.root", "shapes", "--name", "p"]) == 0
    checkpoint = torch.load("runs/p/checkpoints/last.ckpt", weights_only=True)
    tensors = [*checkpoint["state_dict"].values()]
    for state in checkpoint["optimizer_states"][0]["state"].values():
        tensors += [state["exp_avg"], state["exp_avg_sq"]]
    assert cost.checkpoint_bytes == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    written = Path("runs/p/backbone.safetensors").stat().st_size
    assert cost.weights_bytes <= written < cost.weights_bytes + 20_000


def test_a_gpu_with_little_memory_is_timed_with_fewer_images(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def step(job: Job, num_images: int) -> StepCost:
        tried.append(num_images)
        if num_images > 1:
            raise torch.cuda.OutOfMemoryError
        return COST

    monkeypatch.setattr(plan_cost, "_time_steps", step)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    assert time_steps(job) == COST
    assert tried == [4, 2, 1]


def test_a_killed_process_is_reported_as_a_lack_of_memory(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> "Killed":
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, *_: Any) -> Any:
            raise BrokenProcessPool

    monkeypatch.setattr(plan_cost, "ProcessPoolExecutor", Killed)
    with pytest.raises(UserError, match="memory"):
        time_alone(job)


def says_what_is_known(job: Job) -> Any:
    return [
        level for level in (logging.INFO, logging.WARNING) if logging.getLogger("lit_splitmask").isEnabledFor(level)
    ]


def test_the_process_that_times_repeats_no_message(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cost, "time_steps", says_what_is_known)
    monkeypatch.setattr(plan_cost, "get_context", lambda _: get_context("fork"))
    assert time_alone(job) == []


@pytest.mark.parametrize(
    ("device", "image_size", "num_images", "expected"),
    [("cpu", 48, 128, 64), ("cpu", 48, 16, 16), ("cpu", 224, 2048, 20), ("cpu", 1024, 64, 8), ("cuda", 224, 2048, 256)],
)
def test_only_as_many_images_are_timed_as_take_seconds(
    device: str, image_size: int, num_images: int, expected: int
) -> None:
    assert images_to_time(device, image_size, num_images) == expected
