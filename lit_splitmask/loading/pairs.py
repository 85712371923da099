"""Images with their label maps by (pass, index): what a worker does for one pair."""

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
        read_classes: Reads its map by the image's name: (H, W) int16, -1 without a label.
        transform: Crops both.
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
        """A batch: ``image`` (B, C, S, S) uint8 in channels-last format, ``map`` (B, S, S) int16, ``index`` (B,) int64.

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
    """Whole images, one at a time, with their maps where they have one.

    Args:
        samples: The images.
        read: Reads an image by its name.
        read_classes: Reads its map by the image's name, (H, W) int16; None if there are no maps.
        short_side: Size that the short side of an image is scaled to; None keeps the size. Maps always keep theirs.
        channels: 3, or 1 for luminance only.
    """

    def __init__(
        self, samples: Samples, read: Read, *, read_classes: Read | None, short_side: int | None, channels: int
    ) -> None:
        super().__init__(samples, read, channels=channels)
        self.read_classes, self.short_side = read_classes, short_side

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Tensor]:
        """A batch of one: ``image`` (1, C, h, w) uint8, ``size`` (1, 2), ``index`` (1,) int64, ``map`` (1, H, W) int16.

        ``size`` holds the height and width on disk, which are those of the map.

        Raises:
            DecodeError: A file is missing or damaged.
            ValueError: More than one image is asked for.
        """
        (key,) = keys
        _, index = parse_key(key)
        name = self.samples.files[index]
        image = self.read(name)
        height, width = image.shape[:2]
        scale = scale_for((height, width), self.short_side)
        scaled = resize_to(image, (max(1, round(height * scale)), max(1, round(width * scale))))
        pixels = np.array(self.to_channels(scaled))  # a copy: the reader may return a view of memory that it keeps
        item = {
            "image": torch.from_numpy(pixels).permute(2, 0, 1)[None],
            "size": torch.tensor([[height, width]]),
            "index": torch.tensor([index]),
        }
        if self.read_classes is not None:
            item["map"] = torch.from_numpy(np.array(self.read_classes(name)))[None]
        return item
