"""Images by (pass, index): what a worker does for one image."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from lit_splitmask.datamodules.names import Names
from lit_splitmask.datamodules.sampler import Key
from lit_splitmask.datamodules.transforms import Transform
from lit_splitmask.seeding import derive_seed

NUM_BUFFERS = 3


class Samples:
    """The images of one split, in little memory however many they are.

    Args:
        files: Names that the reader understands.
        labels: One for each, -1 without labels.
    """

    def __init__(self, files: Iterable[str], labels: Sequence[int] | np.ndarray) -> None:
        self.files = Names(files)
        self.labels = np.asarray(labels, dtype=np.int64)
        if self.labels.shape != (len(self.files),):
            raise ValueError(f"There are {len(self.files)} files, but labels of shape {self.labels.shape}.")

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, places: Sequence[int]) -> "Samples":
        """The images at some places, in that order."""
        return Samples([self.files[place] for place in places], self.labels[list(places)])


class Buffers:
    """Where a worker puts its batches: a few pieces of memory by turns, shared with the main process.

    New shared memory for each batch, as is usual, costs as much time as a crop. A loader may prefetch one batch less than there
    are buffers, and must copy a batch before it asks for the next.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._turn = 0

    def next(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of uint8 to write to; outside workers, or for another shape than the first, a new one."""
        if get_worker_info() is None:
            return torch.empty(shape, dtype=torch.uint8)
        if len(self._buffers) < NUM_BUFFERS:
            self._buffers.append(torch.empty(shape, dtype=torch.uint8).share_memory_())
        buffer = self._buffers[self._turn % NUM_BUFFERS]
        if buffer.shape != shape:
            return torch.empty(shape, dtype=torch.uint8)
        self._turn += 1
        return buffer


class IndexedImages(Dataset):
    """The images of a split, cropped; the same key gives the same pixels in every process and run.

    Args:
        samples: The split.
        read: Gives an image by its name, (H, W, 3) uint8.
        transform: Crops it.
        more: For more crops of each image.
        channels: 3, or 1 for the luminance alone.
        seed: Of the augmentation.
    """

    def __init__(
        self,
        samples: Samples,
        read: Callable[[str], np.ndarray],
        *,
        transform: Transform,
        more: Sequence[Transform] = (),
        channels: int = 3,
        seed: int = 0,
    ) -> None:
        self.samples = samples
        self.read = read
        self.transforms = [transform, *more]
        self.channels = channels
        self.seed = seed
        self._buffers = [Buffers() for _ in self.transforms]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key | int) -> dict[str, Tensor]:
        """One image, as :meth:`__getitems__` gives several, without the first dimension."""
        return {name: values[0] for name, values in self.__getitems__([key]).items()}

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Tensor]:
        """A batch.

        Args:
            keys: Numbers of the pass and places in the split; a place alone means pass 0.

        Returns:
            ``image`` (B, C, H, W) uint8 in the channels-last memory format, ``label`` and ``index`` (B,) int64; further crops as
            ``image_1``, ``image_2``, …. A worker writes over an earlier batch's pixels, see :class:`Buffers`.

        Raises:
            DecodeError: A file is gone or damaged.
        """
        crops: list[Tensor | None] = [None] * len(self.transforms)
        indices = []
        for place, key in enumerate(keys):
            pass_number, index = (0, key) if isinstance(key, int) else key
            image = self.read(self.samples.files[index])
            for number, transform in enumerate(self.transforms):
                what = ("augment", pass_number, index) + ((number,) if number else ())
                crop = transform(image, derive_seed(self.seed, *what))
                if self.channels == 1:
                    crop = np.asarray(Image.fromarray(crop).convert("L"))[:, :, None]
                into = crops[number]
                if into is None:
                    into = crops[number] = self._buffers[number].next((len(keys), *crop.shape))
                into[place] = torch.from_numpy(np.require(crop, requirements="W"))
            indices.append(index)
        index_tensor = torch.tensor(indices)
        batch = {
            crop_name(number): pixels.permute(0, 3, 1, 2) for number, pixels in enumerate(crops) if pixels is not None
        }
        return {**batch, "label": torch.from_numpy(self.samples.labels[index_tensor.numpy()]), "index": index_tensor}


def crop_name(number: int) -> str:
    """The name of a crop in a batch."""
    return f"image_{number}" if number else "image"
