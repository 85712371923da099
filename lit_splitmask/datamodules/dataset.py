"""Images by (pass, index): what a worker does for one image."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lit_splitmask.datamodules.names import Names
from lit_splitmask.datamodules.sampler import Key
from lit_splitmask.datamodules.transforms import Transform
from lit_splitmask.seeding import derive_seed


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


def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of what :class:`IndexedImages` gives: ``image`` (B, 3, H, W) uint8 in the channels-last memory format."""
    batch: dict[str, Tensor] = default_collate(samples)
    batch["image"] = batch["image"].permute(0, 3, 1, 2)
    return batch


class IndexedImages(Dataset):
    """The images of a split, cropped; the same key gives the same pixels in every process and run.

    Args:
        samples: The split.
        read: Gives an image by its name, (H, W, 3) uint8.
        transform: Crops it.
        seed: Of the augmentation.
    """

    def __init__(
        self, samples: Samples, read: Callable[[str], np.ndarray], *, transform: Transform, seed: int = 0
    ) -> None:
        self.samples = samples
        self.read = read
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key | int) -> dict[str, Tensor]:
        """One image.

        Args:
            key: Number of the pass and place in the split; a number alone means pass 0.

        Returns:
            ``image`` (H, W, 3) uint8, ``label`` and ``index`` () int64.

        Raises:
            DecodeError: The file is gone or damaged.
        """
        pass_number, index = (0, key) if isinstance(key, int) else key
        image = self.read(self.samples.files[index])
        crop = self.transform(image, derive_seed(self.seed, "augment", pass_number, index))
        return {
            "image": torch.from_numpy(np.require(crop, requirements=["C", "W"])),
            "label": torch.tensor(self.samples.labels[index]),
            "index": torch.tensor(index),
        }
