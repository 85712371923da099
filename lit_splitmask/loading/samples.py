"""The samples of a split, and the base class of the datasets that workers read from."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from lit_splitmask.images.names import Names, Selection
from lit_splitmask.images.split import nested_share, quantiles
from lit_splitmask.loading.sampler import Key
from lit_splitmask.seeding import derive_seed

NUM_BUFFERS = 3

Read = Callable[[Any], np.ndarray]
"""Reads an image by its name, or by its number if the samples have numbers: (H, W, 3) uint8. Must be picklable."""


class Samples:
    """The images of one split, stored compactly.

    Args:
        files: Names of the images, as the reader expects them.
        labels: Label of each image; -1 without a label.
        numbers: (n,) integers, the number of each image by which the reader finds it at once; None to read by name.
        meanings: What each label stands for: (M, K) bool, the classes, if an image may have several; (M,) float64, a number,
            in ascending order; None for one class each.

    Raises:
        ValueError: The numbers of files and labels differ.
    """

    def __init__(
        self,
        files: Iterable[str],
        labels: Sequence[int] | np.ndarray,
        *,
        numbers: np.ndarray | None = None,
        meanings: np.ndarray | None = None,
    ) -> None:
        self.files: Names | Selection = files if isinstance(files, Names | Selection) else Names(files)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.numbers, self.meanings = numbers, meanings
        if self.labels.shape != (len(self.files),):
            raise ValueError(f"There are {len(self.files)} files, but labels of shape {self.labels.shape}.")

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, indices: Sequence[int]) -> "Samples":
        """The images at these indices, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        files, place = (
            (self.files.names, self.files.numbers[chosen])
            if isinstance(self.files, Selection)
            else (self.files, chosen)
        )
        numbers = None if self.numbers is None else self.numbers[chosen]
        return Samples(Selection(files, place), self.labels[chosen], numbers=numbers, meanings=self.meanings)

    def share(self, share: float, seed: int) -> "Samples":
        """A stratified part of the images; see :func:`nested_share`.

        Raises:
            UserError: The share is not in (0, 1].
        """
        if share == 1:
            return self
        are_numbers = self.meanings is not None and self.meanings.ndim == 1
        strata = (
            quantiles(self.labels) if are_numbers else self.labels
        )  # these labels are in the order of their numbers
        return self.subset(nested_share(strata.tolist(), share, seed))

    def relabelled(self, labels: Sequence[int]) -> "Samples":
        """The same images with other labels."""
        return Samples(self.files, labels, numbers=self.numbers, meanings=self.meanings)

    def with_meanings(self, meanings: np.ndarray) -> "Samples":
        """The same images, whose labels stand for these sets of classes, or these numbers."""
        return Samples(self.files, self.labels, numbers=self.numbers, meanings=meanings)

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """What a batch has as ``label``: (B,) int64; (B, K) float32 of 0 and 1 with several labels, or (B,) float32 of numbers.

        Floats are NaN without a label.
        """
        labels = self.labels[indices]
        if self.meanings is None:
            return labels
        found: np.ndarray = self.meanings[labels].astype(np.float32)
        found[labels < 0] = np.nan
        return found

    def key(self, index: int) -> str | int:
        """The reader's key of an image: its number, or its name if there are no numbers."""
        return self.files[index] if self.numbers is None else int(self.numbers[index])

    def labelled(self) -> "Samples":
        """The images that have a label."""
        return self if self.all_labelled else self.subset(np.flatnonzero(self.labels >= 0).tolist())

    @property
    def all_labelled(self) -> bool:
        """Whether every image has a label."""
        return bool((self.labels >= 0).all())


class Buffers:
    """A worker's memory for batches: a few blocks shared with the main process, used in turn.

    Allocating new shared memory for every batch, as PyTorch does, takes as long as a crop. A loader may prefetch one batch
    fewer than there are buffers, and must copy a batch before it requests the next.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._next = 0

    def next(self, shape: tuple[int, ...]) -> Tensor:
        """A uint8 tensor to write to; a new one outside workers, or if the shape differs from the first."""
        if get_worker_info() is None:
            return torch.empty(shape, dtype=torch.uint8)
        if len(self._buffers) < NUM_BUFFERS:
            self._buffers.append(torch.empty(shape, dtype=torch.uint8).share_memory_())
        buffer = self._buffers[self._next % NUM_BUFFERS]
        if buffer.shape != shape:
            return torch.empty(shape, dtype=torch.uint8)
        self._next += 1
        return buffer


class KeyedDataset(Dataset):
    """The images of a split by key; the same key gives the same result in every process and run.

    Args:
        samples: Images of the split.
        read: Reads an image by its name.
        channels: 3, or 1 for luminance only.
        seed: Seed of the augmentation.
    """

    def __init__(self, samples: Samples, read: Read, *, channels: int = 3, seed: int = 0) -> None:
        self.samples, self.read = samples, read
        self.channels, self.seed = channels, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """One sample: an entry of :meth:`__getitems__` without the batch dimension."""
        return {name: values[0] for name, values in self.__getitems__([key]).items()}

    @abstractmethod
    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Any]:
        """Makes a batch.

        Args:
            keys: Pass numbers and indices into the split; an index alone means pass 0.
        """

    def augment_seed(self, pass_number: int, index: int, *more: int) -> int:
        """The seed of the augmentation of an image in a pass."""
        return derive_seed(self.seed, "augment", pass_number, index, *more)

    def to_channels(self, image: np.ndarray) -> np.ndarray:
        """Converts (H, W, 3) uint8 to (H, W, channels) uint8: unchanged, or the luminance (ITU-R 601)."""
        return image if self.channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[:, :, None]


def parse_key(key: Key | int) -> Key:
    """The pass number and the index of a key; an index alone means pass 0."""
    return (0, key) if isinstance(key, int) else key


def writable_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor, copied if it is read-only (torch warns about those)."""
    return torch.from_numpy(np.require(array, requirements="W"))
