"""How pixel values are scaled: mean and standard deviation, and the window of images of more than 8 bits."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningDataModule

from lit_splitmask.images.statistics import MOST_WINDOW_IMAGES, PERCENTILES, Colour, luminance, measure_window
from lit_splitmask.images.window import DEEP, Window, show
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)


class PixelData(LightningDataModule):
    """What a datamodule says about the values of its pixels.

    Attributes:
        channels: 3, or 1 for luminance only.
        window: The window that the user gave; None if there is none.
    """

    channels: Literal[1, 3]
    window: Window | None = None
    _said_window: str | None = None

    @property
    def source(self) -> Source:
        """The opened images."""
        raise NotImplementedError

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """Mean of each channel, of pixels in [0, 1]."""
        return self._per_channel(self.source.mean)

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, of pixels in [0, 1]."""
        return self._per_channel(self.source.std)

    def _per_channel(self, rgb: Colour) -> tuple[float, ...]:
        return rgb if self.channels == 3 else (luminance(rgb),)

    @property
    def pixel_window(self) -> Window | None:
        """The values of images of more than 8 bits that become black and white; None without such images."""
        return self.source.window

    @property
    def given_window(self) -> Window | None:
        """The window that the user gave, otherwise that of the weights of the trainer's module; None to measure it."""
        module = getattr(self.trainer, "lightning_module", None)
        return self.window or getattr(module, "pixel_window", None)

    def choose_window(self, deep: Sequence[tuple[Path, str]], num_plain: int, folder: Path) -> Window | None:
        """The window for all splits, which is logged: :attr:`given_window`, or one measured on training images.

        Args:
            deep: Paths of the training images of more than 8 bits (or of all, if none of those has), and hashes of their pixels.
            num_plain: Number of the other training images.
            folder: Where a measured window is saved.

        Returns:
            The window; None if it was not given and there are no such images.

        Raises:
            UserError: An image is missing or damaged.
        """
        window, how = self.given_window, "given by the settings or the weights"
        if not deep:
            return window
        if window is None:
            window = measure_window(deep, folder)
            low, high = PERCENTILES
            how = f"{low:g} and {high:g} % of the pixels of {min(len(deep), MOST_WINDOW_IMAGES):,} of them"
        line = (
            f"Window: {len(deep):,} images to train on have more than 8 bits; their values from black to white are those of "
            f"--data.window={show(window)} ({how})."
        )
        if num_plain:
            line += f" {num_plain:,} others have 8 bits and are read as they are: check that the two kinds look alike."
        if line != self._said_window:
            self._said_window = line
            log.log(logging.WARNING if num_plain else logging.INFO, "%s", line)
        return window

    def window_of(self, root: Path, train: Sequence[str], hash_of: Callable[[str], str], folder: Path) -> Window | None:
        """:meth:`choose_window` for training images by name.

        Args:
            root: Folder that the names are relative to.
            train: The training images.
            hash_of: Gives the hash of an image's pixels.
            folder: Where a measured window is saved.
        """
        deep = [(root / file, pixels) for file in train if (pixels := hash_of(file)).startswith(DEEP)]
        return self.choose_window(deep, len(train) - len(deep), folder)
