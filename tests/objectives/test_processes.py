"""Two processes with half a batch each have the loss and the gradients of one with the whole batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from reference.tiny import generator, tiny_batch, tiny_splitmask
from reference.tiny_methods import METHODS, batch_of
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lit_splitmask.distributed import alone, gather, local_rows, rank, world_size
from lit_splitmask.losses import info_nce
from lit_splitmask.masking import BlockMasking, UniformMasking

WORLD = 2
VARIANTS: dict[str, dict[str, Any]] = {
    "block": {"masking": BlockMasking()},
    "uniform": {"masking": UniformMasking(0.75), "same_branch_negatives": True},
    "complement": {"masking": UniformMasking(0.75, complement=True)},
}


def step(model: torch.nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    losses = model(batch, torch.Generator().manual_seed(3))
    losses["loss"].backward()
    return {name: value.detach() for name, value in losses.items()}


def cut(value: Any) -> Any:
    return [local_rows(crop) for crop in value] if isinstance(value, list) else local_rows(value)


def train(name: str, batch: dict[str, Any], wrap: Any) -> dict[str, Any]:
    """Two steps of SGD: the losses, averaged over the processes, and the final state."""
    model = METHODS[name].make()
    model.progress = 0.5
    wrapped = wrap(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for step in range(2):
        optimizer.zero_grad()
        loss = wrapped({key: cut(value) for key, value in batch.items()}, generator(step))["loss"]
        loss.backward()
        optimizer.step()
        model.after_step(0.6)
        mean = loss.detach().clone()
        if world_size() > 1:
            dist.all_reduce(mean)
        losses.append(mean / world_size())
    return {"losses": losses, "state": {key: value.clone() for key, value in model.state_dict().items()}}


def process(number: int, folder: Path) -> None:
    """Runs in each of the two processes, and writes its results."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD)
    results: dict[str, Any] = {"rank": rank(), "world_size": world_size()}
    for name, changes in VARIANTS.items():
        model = tiny_splitmask(**changes)
        local = {key: local_rows(value) for key, value in tiny_batch(6).items()}
        losses = step(DistributedDataParallel(model), local)
        for value in losses.values():
            dist.all_reduce(value)
        results[name] = {key: value / WORLD for key, value in losses.items()}
        results[f"{name} gradients"] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for name in METHODS:
        results[name] = train(name, batch_of(6), lambda model: DistributedDataParallel(model))
    results["gathered"] = gather(torch.full((2, 1), float(number)))
    results["local"] = local_rows(torch.arange(6))
    with alone():
        results["alone"] = (world_size(), rank(), len(gather(torch.zeros(2, 1))), len(local_rows(torch.arange(6))))
        results["alone loss"] = info_nce(torch.eye(2), torch.eye(2).flip(0))[0]
    torch.save(results, folder / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (folder,), nprocs=WORLD)
    return [torch.load(folder / f"{number}.pt") for number in range(WORLD)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_have_the_loss_and_gradients_of_one(results: list[dict[str, Any]], variant: str) -> None:
    model = tiny_splitmask(**VARIANTS[variant])
    expected = step(model, tiny_batch(6))
    for result in results:
        assert result[variant].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(result[variant][name], value, rtol=1e-5, atol=1e-5)
        gradients = result[f"{variant} gradients"]
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_train_a_method_as_one_does(results: list[dict[str, Any]], name: str) -> None:
    """Losses, weights, teachers, centres and the statistics of batch norms after two steps."""
    expected = train(name, batch_of(6), lambda model: model)
    for result in results:
        torch.testing.assert_close(result[name]["losses"], expected["losses"], rtol=1e-4, atol=1e-5)
        assert result[name]["state"].keys() == expected["state"].keys()
        for key, value in expected["state"].items():
            torch.testing.assert_close(result[name]["state"][key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_rows_are_gathered_and_cut_in_the_order_of_rank(results: list[dict[str, Any]]) -> None:
    assert [result["rank"] for result in results] == [0, 1]
    assert [result["world_size"] for result in results] == [2, 2]
    assert all(result["gathered"].flatten().tolist() == [0, 0, 1, 1] for result in results)
    assert [result["local"].tolist() for result in results] == [[0, 1, 2], [3, 4, 5]]


def test_a_process_can_count_as_the_only_one(results: list[dict[str, Any]]) -> None:
    assert all(result["alone"] == (1, 0, 2, 6) for result in results)
    assert all(torch.equal(r["alone loss"], info_nce(torch.eye(2), torch.eye(2).flip(0))[0]) for r in results)


def test_without_processes_there_is_one() -> None:
    rows = torch.arange(6)[:, None].float()
    assert (world_size(), rank()) == (1, 0)
    assert gather(rows) is rows
    assert torch.equal(local_rows(rows), rows)
