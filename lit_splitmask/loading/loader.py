"""Data loaders that do not affect the random state or the threads of the process."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lit_splitmask.allocator import drop_freed_memory
from lit_splitmask.errors import UserError
from lit_splitmask.loading.samples import NUM_BUFFERS

_MAX_WORKERS = 8

GRACE_SECONDS = 10
"""How long a process that reads images lives on after SIGTERM."""


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
                    self._copy(batch, buffers)
                yield batch
        except UserError as error:  # from a worker, its text is a stack trace
            raise type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from None

    def _copy(self, batch: dict[str, Any], buffers: dict[int, Tensor]) -> None:
        """Copies a batch into this process's own memory, except lists of images and targets."""
        names = [name for name in batch if name.startswith("image") and isinstance(batch[name], Tensor)]
        for name in names:
            image = batch[name]
            if len(buffers) < NUM_BUFFERS * self.num_workers * len(names):  # images of varying size use no buffer
                buffers[image.data_ptr()] = image
            batch[name] = torch.from_numpy(image.numpy().copy(order="K"))  # torch's copy would wake all its threads
        # Each tensor from a worker keeps a file open as long as it lives, and callers may collect these.
        small = (name for name in batch if not name.startswith(("image", "target")))
        batch |= {name: _copied(batch[name]) for name in small}

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
        collate_fn=_identity,
        prefetch_factor=NUM_BUFFERS - 1 if num_workers else None,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_init_worker,
        generator=torch.Generator().manual_seed(0),  # otherwise an iterator draws from torch's global generator
    )


def _copied(value: Any) -> Any:
    """The value with its tensors copied into this process's own memory."""
    if isinstance(value, Tensor):
        return torch.from_numpy(value.numpy().copy())
    if isinstance(value, dict):
        return {name: _copied(entry) for name, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value


def _identity(batch: Any) -> Any:  # the dataset makes whole batches
    return batch


def _init_worker(worker: int) -> None:
    import cv2

    # The end of a container or a job signals every process: the training needs its batches until it has stopped in order.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
    drop_freed_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
