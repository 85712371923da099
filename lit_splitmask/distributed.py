"""Communication between the processes that train together. Everything works without a process group too.

W processes, B rows per process.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(weeks=4)
"""How long processes wait for work that process 0 does for all."""

_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Makes this process count as the only one, for evaluation, in which processes may have different numbers of batches."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def world_size() -> int:
    """Number of processes that train together; 1 without a process group and within :func:`alone`."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process; 0 without a process group and within :func:`alone`."""
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """All-gather of rows; the backward pass sums the gradients of all processes and returns this process's rows."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        parts = [torch.empty_like(features) for _ in range(world_size())]
        dist.all_gather(parts, features.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        total = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return local_rows(total)


def gather(features: Tensor) -> Tensor:
    """Concatenates the rows of all processes in rank order, with gradient to every process.

    The gradient of a row is summed over the losses of all processes. With gradients averaged over processes, as DDP does, W
    processes equal one process that averages its loss over the whole batch.

    Args:
        features: (B, D) float, the same shape on every process.

    Returns:
        (W·B, D), the same type.
    """
    return _Gather.apply(features) if world_size() > 1 else features


def local_rows(rows: Tensor) -> Tensor:
    """This process's slice of a tensor made for all processes: (W·B, …) -> (B, …)."""
    return rows.chunk(world_size())[rank()]


def gather_objects(objects: list[Any]) -> list[Any]:
    """Concatenates the lists of all processes in rank order; they may differ in length."""
    if world_size() == 1:
        return objects
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, objects)
    return [entry for part in parts for entry in part]


def broadcast_from_zero(tensor: Tensor) -> None:
    """Overwrites a tensor in place with the one of process 0."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)


def after_process_zero(work: Callable[[], object], *results: Tensor) -> None:
    """Process 0 does work that may take hours; the others wait for it, and get its results.

    The wait is a separate message on the CPU with a timeout of weeks, so the limit of the process group (30 minutes by
    default) does not apply. If process 0 fails or ends, the others fail at once.

    Args:
        work: What process 0 does.
        results: Tensors that are then overwritten in place with those of process 0.
    """
    if world_size() == 1:
        work()
        return
    group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)  # before the work: all processes make it together
    try:
        if rank() == 0:
            work()
        for result in results:
            sent = result.cpu()
            dist.broadcast(sent, src=0, group=group)
            result.copy_(sent)
    finally:
        dist.destroy_process_group(group)


def sum_over_processes(tensor: Tensor) -> None:
    """Overwrites a tensor in place with the sum over all processes."""
    if world_size() > 1:
        dist.all_reduce(tensor)


def mean_over_processes(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Named scalars as means over all processes, without gradient, in one message: NaN anywhere is NaN everywhere."""
    detached = {name: value.detach() for name, value in values.items()}
    if world_size() == 1:
        return detached
    means = torch.stack([value.float() for value in detached.values()])
    sum_over_processes(means)
    return dict(zip(detached, means / world_size(), strict=True))


class _Sum(torch.autograd.Function):
    """All-reduce; the backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        total = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def differentiable_sum(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, with gradient to every process (as in :func:`gather`)."""
    return _Sum.apply(tensor) if world_size() > 1 else tensor
