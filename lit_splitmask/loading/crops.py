"""The dataset of image crops: reads, crops and augments an image by its key (pass, index)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_splitmask.augment.base import CropTransform, Transform
from lit_splitmask.loading.sampler import Key
from lit_splitmask.loading.samples import Buffers, KeyedDataset, Read, Samples, parse_key


class IndexedImages(KeyedDataset):
    """The images of a split, cropped.

    Args:
        samples: Images of the split.
        read: Reads an image by its name.
        transform: Makes the first crop.
        more: Transforms for further crops of each image, each with a seed of its own, or the first crop's if it has the attribute
            ``follows_first``.
        channels: 3, or 1 for luminance only.
        seed: Seed of the augmentation.
    """

    def __init__(
        self,
        samples: Samples,
        read: Read,
        *,
        transform: Transform,
        more: Sequence[Transform] = (),
        channels: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(samples, read, channels=channels, seed=seed)
        self.transforms = [transform, *more]
        self._buffers = [Buffers() for _ in self.transforms]

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Tensor]:
        """Makes a batch of crops.

        Returns:
            ``image`` (B, C, H, W) uint8 in channels-last memory format, ``label`` and ``index`` (B,) int64, and further crops as
            ``image_1``, ``image_2``, …. A worker reuses the memory of earlier batches, see :class:`Buffers`.

        Raises:
            DecodeError: A file is missing or damaged.
        """
        crops: dict[int, Tensor] = {}
        arrays: dict[int, np.ndarray] = {}  # the same memory: NumPy copies a small crop faster than torch

        def rows(number: int, *shape: int) -> np.ndarray:
            if number not in arrays:
                crops[number] = self._buffers[number].next((len(keys), *shape))
                arrays[number] = crops[number].numpy()
            return arrays[number]

        indices = []
        for row, key in enumerate(keys):
            pass_number, index = parse_key(key)
            image = self.read(self.samples.key(index))
            for number, transform in enumerate(self.transforms):
                own_seed = number and not getattr(transform, "follows_first", False)
                seed = self.augment_seed(pass_number, index, *([number] if own_seed else []))
                if isinstance(transform, CropTransform) and self.channels == 3:
                    size = transform.image_size
                    transform.write(image, seed, rows(number, size, size, 3)[row])
                else:
                    crop = self.to_channels(transform(image, seed))
                    rows(number, *crop.shape)[row] = crop
            indices.append(index)
        index_tensor = torch.tensor(indices)
        images = {crop_name(number): pixels.permute(0, 3, 1, 2) for number, pixels in sorted(crops.items())}
        return {**images, "label": torch.from_numpy(self.samples.targets(index_tensor.numpy())), "index": index_tensor}


def crop_name(number: int) -> str:
    """The name of a crop in a batch."""
    return f"image_{number}" if number else "image"
