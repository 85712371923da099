"""The datasets of images with label maps: reads a pair by its key (pass, index), as crops or whole."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_splitmask.augment.segment import JointTransform, resize_to, scale_for
from lit_splitmask.loading.sampler import Key
from lit_splitmask.loading.samples import Buffers, KeyedDataset, Read, Samples, parse_key, writable_tensor


class PairedCrops(KeyedDataset):
    """Crops of images and their maps, augmented together.

    Args:
        samples: The images.
        read: Reads an image by its name.
        read_classes: Reads the label map by the image's name: (H, W) int16, -1 without a label.
        transform: Crops and augments both.
        channels: 3, or 1 for luminance only.
        seed: Seed of the augmentation.
    """

    def __init__(
        self, samples: Samples, read: Read, *, read_classes: Read, transform: JointTransform, channels: int, seed: int
    ) -> None:
        super().__init__(samples, read, channels=channels, seed=seed)
        self.read_classes, self.transform = read_classes, transform
        self._buffers = Buffers()

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Tensor]:
        """Makes a batch of crops.

        Returns:
            ``image`` (B, C, S, S) uint8 in channels-last memory format, ``map`` (B, S, S) int16, and ``index`` (B,) int64. A
            worker reuses the memory of earlier batches, see :class:`Buffers`.

        Raises:
            DecodeError: A file is missing or damaged.
        """
        images: Tensor | None = None
        maps, indices = [], []
        for row, key in enumerate(keys):
            pass_number, index = parse_key(key)
            name = self.samples.files[index]
            crop, classes = self.transform(
                self.read(name), self.read_classes(name), self.augment_seed(pass_number, index)
            )
            crop = self.to_channels(crop)
            if images is None:
                images = self._buffers.next((len(keys), *crop.shape))
            images[row] = writable_tensor(crop)
            maps.append(writable_tensor(classes))
            indices.append(index)
        assert images is not None
        return {"image": images.permute(0, 3, 1, 2), "map": torch.stack(maps), "index": torch.tensor(indices)}


class WholeImages(KeyedDataset):
    """Whole images, one at a time, with their label maps if there are any.

    Args:
        samples: The images.
        read: Reads an image by its name.
        read_classes: Reads the label map by the image's name, (H, W) int16; None if there are no maps.
        short_side: Short side after scaling, in pixels; None for the size on disk. Label maps keep their size.
        channels: 3, or 1 for luminance only.
    """

    def __init__(
        self, samples: Samples, read: Read, *, read_classes: Read | None, short_side: int | None, channels: int
    ) -> None:
        super().__init__(samples, read, channels=channels)
        self.read_classes, self.short_side = read_classes, short_side

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Tensor]:
        """Makes a batch of one image.

        Returns:
            ``image`` (1, C, h, w) uint8, ``size`` (1, 2) int64, the height and width on disk, ``index`` (1,) int64, and, if there
            are label maps, ``map`` (1, H, W) int16 at the size on disk.

        Raises:
            DecodeError: A file is missing or damaged.
            ValueError: The batch has more than one key.
        """
        (key,) = keys
        _, index = parse_key(key)
        name = self.samples.files[index]
        image = self.read(name)
        height, width = image.shape[:2]
        scale = scale_for((height, width), self.short_side)
        scaled = resize_to(image, (max(1, round(height * scale)), max(1, round(width * scale))))
        pixels = np.array(self.to_channels(scaled))  # copied: the reader may return a view of its own memory
        item = {
            "image": torch.from_numpy(pixels).permute(2, 0, 1)[None],
            "size": torch.tensor([[height, width]]),
            "index": torch.tensor([index]),
        }
        if self.read_classes is not None:
            item["map"] = torch.from_numpy(np.array(self.read_classes(name)))[None]
        return item
