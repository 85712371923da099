"""Data loaders that leave the process's randomness and threads alone."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lit_splitmask.allocator import drop_freed_memory
from lit_splitmask.errors import UserError
from lit_splitmask.loading.samples import NUM_BUFFERS

_MOST_WORKERS = 8


def default_num_workers() -> int:
    """One less than the usable cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(_MOST_WORKERS, cores - 1))


class Loader(DataLoader):
    """A data loader that starts reading at the first ``next``, and passes a worker's user error on as it was."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches.

        A plain loader's workers ask the sampler already in ``iter``, which Lightning may call before it has restored
        the step of a checkpoint. A generator waits until the first batch is wanted.

        Raises:
            UserError: An image is gone or damaged.
        """
        held: dict[int, Tensor] = {}  # the workers' buffers, which are mapped anew unless somebody holds on to them
        try:
            for batch in super().__iter__():
                if self.num_workers and not self.pin_memory:  # pinning has copied them already
                    names = [name for name in batch if name.startswith("image") and isinstance(batch[name], Tensor)]
                    for name in names:
                        image, most = batch[name], NUM_BUFFERS * self.num_workers * len(names)
                        if len(held) < most:  # images of many sizes come in memory of their own
                            held[image.data_ptr()] = image
                        batch[name] = torch.from_numpy(
                            image.numpy().copy(order="K")
                        )  # torch would wake all its threads
                    # each of a worker's tensors holds a file open, for as long as somebody keeps it
                    small = (name for name in batch if not name.startswith(("image", "target")))
                    batch |= {name: _owned(batch[name]) for name in small}
                yield batch
        except UserError as error:  # from a worker, its text is a stack trace
            raise type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from None

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the trainer's step decides what comes next. Having it tells Lightning that a resume is safe."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes nothing back; see :meth:`state_dict`."""


def make_loader(dataset: Dataset, sampler: DistributedSampler, *, batch_size: int, num_workers: int) -> DataLoader:
    """A loader whose batches are the same for any number of workers.

    Args:
        dataset: The images.
        sampler: Which to read, as keys of the dataset.
        batch_size: Images a batch, on this process.
        num_workers: Processes that read; 0 reads in this one.
    """
    return Loader(
        dataset,
        batch_size=batch_size,
        collate_fn=_as_it_is,
        prefetch_factor=NUM_BUFFERS - 1 if num_workers else None,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
        generator=torch.Generator().manual_seed(0),  # otherwise an iterator draws from torch's global generator
    )


def _owned(value: Any) -> Any:
    """The same with tensors in this process's own memory."""
    if isinstance(value, Tensor):
        return torch.from_numpy(value.numpy().copy())
    if isinstance(value, dict):
        return {name: _owned(one) for name, one in value.items()}
    return [_owned(one) for one in value] if isinstance(value, list) else value


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin_worker(worker: int) -> None:
    import cv2

    drop_freed_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
