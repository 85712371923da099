"""Data loaders that do not affect the random state or the threads of the process."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

from lit_splitmask.allocator import drop_freed_memory
from lit_splitmask.errors import UserError
from lit_splitmask.loading.samples import NUM_BUFFERS

_MAX_WORKERS = 8

MOST_BY_VALUE = 2**16
"""Bytes up to which a worker sends a tensor by value. For one in shared memory it sends an open file, with two messages and a
thread on either side: with a tiny network, that takes longer than everything else."""

GRACE_SECONDS = 10
"""How long a process that reads images stays alive after SIGTERM."""


def default_num_workers() -> int:
    """One less than the number of usable cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(_MAX_WORKERS, cores - 1))


class Loader(DataLoader):
    """A data loader that starts reading at the first ``next``, and reraises a worker's user error without its stack trace."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches.

        In a plain loader, ``iter`` already makes the workers ask the sampler, and Lightning may call it before it has restored
        the step of a checkpoint. A generator waits until the first batch is requested.

        Raises:
            UserError: An image is missing or damaged.
        """
        buffers: dict[int, Tensor] = {}  # references to the workers' buffers; without one, each batch is mapped again
        try:
            for batch in super().__iter__():
                if self.num_workers and not self.pin_memory:  # pinning has already copied the batch
                    batch = self._received(batch, buffers)
                yield batch
        except UserError as error:  # from a worker, its text is a stack trace
            raise type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from None

    def _received(self, batch: dict[str, Any], buffers: dict[int, Tensor]) -> dict[str, Any]:
        """The batch in this process's own memory, except large tensors in lists of images and targets."""
        names = [name for name in batch if name.startswith("image") and isinstance(batch[name], Tensor)]
        received = {}
        for name, value in batch.items():
            if name in names:
                if len(buffers) < NUM_BUFFERS * self.num_workers * len(names):  # images of varying size use no buffer
                    buffers[value.data_ptr()] = value
                received[name] = torch.from_numpy(
                    value.numpy().copy(order="K")
                )  # torch's copy would wake all its threads
            else:  # each tensor in shared memory keeps a file open as long as it lives, and callers may collect these
                received[name] = _unpacked(value, copied=not name.startswith(("image", "target")))
        return received

    def state_dict(self) -> dict[str, Any]:
        """Empty: the trainer's step determines the next batch. Its presence tells Lightning that resuming is safe."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing; see :meth:`state_dict`."""


def make_loader(dataset: Dataset, sampler: DistributedSampler, *, batch_size: int, num_workers: int) -> DataLoader:
    """Makes a loader whose batches are the same for any number of workers.

    Args:
        dataset: The images.
        sampler: Yields the keys of the images to read.
        batch_size: Images per batch on this process.
        num_workers: Processes that read; 0 reads in this process.
    """
    return Loader(
        dataset,
        batch_size=batch_size,
        collate_fn=_packed_in_workers,
        prefetch_factor=NUM_BUFFERS - 1 if num_workers else None,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_init_worker,
        generator=torch.Generator().manual_seed(0),  # otherwise an iterator draws from torch's global generator
    )


class _ByValue:
    """A small tensor on its way from a worker, in the message itself."""

    def __init__(self, tensor: Tensor) -> None:
        self._is_channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        self._array = (tensor.permute(0, 2, 3, 1) if self._is_channels_last else tensor).numpy()

    def tensor(self) -> Tensor:
        """The tensor, in the same memory format."""
        tensor = torch.from_numpy(self._array)
        return tensor.permute(0, 3, 1, 2) if self._is_channels_last else tensor

    def pin_memory(self) -> Tensor:
        """The tensor in pinned memory; the loader's thread that pins batches calls it."""
        return self.tensor().pin_memory()


def _packed_in_workers(batch: Any) -> Any:
    """The batch, which the dataset has made; in a worker, with its small tensors to be sent by value."""
    if get_worker_info() is None:
        return batch
    return _mapped(batch, lambda value: _ByValue(value) if value.nbytes <= MOST_BY_VALUE else value)


def _unpacked(value: Any, *, copied: bool) -> Any:
    """A value from a worker with the tensors that came by value; the others are copied into this process's memory, or not."""

    def take(entry: Any) -> Any:
        if isinstance(entry, _ByValue):
            return entry.tensor()
        return torch.from_numpy(entry.numpy().copy()) if copied else entry

    return _mapped(value, take)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """The value with a function applied to the tensors in it, in dictionaries and lists too."""
    if isinstance(value, Tensor | _ByValue):
        return function(value)
    if isinstance(value, dict):
        return {name: _mapped(entry, function) for name, entry in value.items()}
    return [_mapped(entry, function) for entry in value] if isinstance(value, list) else value


def _init_worker(worker: int) -> None:
    import cv2

    # The end of a container or a job signals every process: the training needs its batches until it has stopped cleanly.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
    drop_freed_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
