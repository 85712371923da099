"""The few things that the code must know about the other processes; all of it works without a process group."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process counts as the only one: for evaluation, where processes may have unequally many batches."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process among them; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """All-gather of rows; backward sums the processes' gradients and keeps this process's rows."""

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
    """Concatenates the processes' rows in the order of rank, with gradient to every process.

    The gradient of a row is the sum over all processes' losses, so that with gradients averaged over processes (as
    DDP does) W processes equal one process that holds the whole batch and averages its loss.

    Args:
        features: (B, D), the same shape on every process.

    Returns:
        (W·B, D).
    """
    return _Gather.apply(features) if world_size() > 1 else features


def local_rows(rows: Tensor) -> Tensor:
    """The slice of this process out of what was drawn for all: (W·B, …) -> (B, …)."""
    return rows.chunk(world_size())[rank()]


def gather_objects(objects: list[Any]) -> list[Any]:
    """The processes' lists, one after the other in the order of rank."""
    if world_size() == 1:
        return objects
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, objects)
    return [one for part in parts for one in part]


def broadcast_from_zero(tensor: Tensor) -> None:
    """Overwrites ``tensor`` in place with that of process zero."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)


def sum_over_processes(tensor: Tensor) -> None:
    """Overwrites ``tensor`` in place with the sum over the processes."""
    if world_size() > 1:
        dist.all_reduce(tensor)


class _Sum(torch.autograd.Function):
    """All-reduce; backward sums the processes' gradients."""

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
    """The sum over the processes, with gradient to every process (in the sense of :func:`gather`)."""
    return _Sum.apply(tensor) if world_size() > 1 else tensor
