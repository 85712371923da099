"""Images with their label maps by (pass, index): what a worker does for one pair."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lit_splitmask.datamodules.dataset import Buffers, Samples
from lit_splitmask.datamodules.sampler import Key
from lit_splitmask.datamodules.segment_augment import JointTransform, resize_to, scale_for
from lit_splitmask.seeding import derive_seed

Read = Callable[[str], np.ndarray]


def _grey(image: np.ndarray, channels: int) -> np.ndarray:
    return image if channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[:, :, None]


class PairedCrops(Dataset):
    """Crops of images and maps, augmented together; the same key gives the same pixels in every process and run.

    Args:
        samples: The images.
        read: Gives an image by its name, (H, W, 3) uint8.
        read_classes: Gives its map by the image's name, (H, W) int16, -1 without a label.
        transform: Crops both.
        channels: 3, or 1 for the luminance alone.
        seed: Of the augmentation.
    """

    def __init__(
        self, samples: Samples, read: Read, *, read_classes: Read, transform: JointTransform, channels: int, seed: int
    ) -> None:
        self.samples, self.read, self.read_classes = samples, read, read_classes
        self.transform, self.channels, self.seed = transform, channels, seed
        self._buffers = Buffers()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key | int) -> dict[str, Tensor]:
        """One pair, as :meth:`__getitems__` gives several, without the first dimension."""
        return {name: values[0] for name, values in self.__getitems__([key]).items()}

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Tensor]:
        """A batch: ``image`` (B, C, S, S) uint8 in channels-last format, ``map`` (B, S, S) int16, ``index`` (B,) int64.

        Raises:
            DecodeError: A file is gone or damaged.
        """
        images: Tensor | None = None
        maps, indices = [], []
        for place, key in enumerate(keys):
            pass_number, index = (0, key) if isinstance(key, int) else key
            name = self.samples.files[index]
            crop, classes = self.transform(
                self.read(name), self.read_classes(name), derive_seed(self.seed, "augment", pass_number, index)
            )
            crop = _grey(crop, self.channels)
            if images is None:
                images = self._buffers.next((len(keys), *crop.shape))
            images[place] = torch.from_numpy(np.require(crop, requirements="W"))
            maps.append(torch.from_numpy(np.require(classes, requirements="W")))
            indices.append(index)
        assert images is not None
        return {"image": images.permute(0, 3, 1, 2), "map": torch.stack(maps), "index": torch.tensor(indices)}


class WholeImages(Dataset):
    """Whole images, one at a time, and their maps where there are any.

    Args:
        samples: The images.
        read: Gives an image by its name, (H, W, 3) uint8.
        read_classes: Gives its map by the image's name, (H, W) int16; None where there are none.
        short_side: To which images are scaled; None leaves them as they are. Maps keep their size.
        channels: 3, or 1 for the luminance alone.
    """

    def __init__(
        self, samples: Samples, read: Read, *, read_classes: Read | None, short_side: int | None, channels: int
    ) -> None:
        self.samples, self.read, self.read_classes = samples, read, read_classes
        self.short_side, self.channels = short_side, channels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key | int) -> dict[str, Tensor]:
        """One image, as :meth:`__getitems__` gives it, without the first dimension."""
        return {name: values[0] for name, values in self.__getitems__([key]).items()}

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Tensor]:
        """A batch of one: ``image`` (1, C, h, w) uint8, ``size`` (1, 2), ``index`` (1,) int64, ``map`` (1, H, W) int16.

        ``size`` holds the height and width on disk, which are those of the map.

        Raises:
            DecodeError: A file is gone or damaged.
            ValueError: More than one image is asked for.
        """
        (key,) = keys
        index = key if isinstance(key, int) else key[1]
        name = self.samples.files[index]
        image = self.read(name)
        height, width = image.shape[:2]
        scale = scale_for((height, width), self.short_side)
        shown = resize_to(image, (max(1, round(height * scale)), max(1, round(width * scale))))
        pixels = np.array(_grey(shown, self.channels))  # of its own: a reader may give a view of what it keeps
        item = {
            "image": torch.from_numpy(pixels).permute(2, 0, 1)[None],
            "size": torch.tensor([[height, width]]),
            "index": torch.tensor([index]),
        }
        if self.read_classes is not None:
            item["map"] = torch.from_numpy(np.array(self.read_classes(name)))[None]
        return item
