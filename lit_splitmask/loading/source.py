"""The data that a datamodule opens: splits, classes, a reader, pixel statistics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lit_splitmask.images.statistics import Colour
from lit_splitmask.images.window import Window
from lit_splitmask.loading.samples import Read, Samples


@dataclass(frozen=True)
class Source:
    """The data that a datamodule opens.

    Args:
        splits: Samples of ``train``, and of ``val`` and ``test`` if they exist.
        predict: Samples that ``predict`` runs over.
        class_names: Class names by label; empty without labels.
        read: Reads an image by its name: (H, W, 3) uint8. Must be picklable.
        mean, std: Mean and standard deviation of the pixels, in [0, 1].
        problems: Why images cannot be predicted, by name.
        window: The values of images of more than 8 bits that become black and white; None if there is no window.
    """

    splits: Mapping[str, Samples]
    predict: Samples
    class_names: list[str]
    read: Read
    mean: Colour
    std: Colour
    problems: Mapping[str, str] = field(default_factory=dict)
    window: Window | None = None
