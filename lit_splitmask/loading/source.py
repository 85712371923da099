"""What a datamodule reads from."""

from collections.abc import Mapping
from dataclasses import dataclass

from lit_splitmask.images.statistics import Colour
from lit_splitmask.loading.samples import Read, Samples


@dataclass(frozen=True)
class Source:
    """What a datamodule reads from.

    Args:
        splits: ``train``, and ``val`` and ``test`` where they exist.
        predict: What ``predict`` runs over.
        class_names: Sorted; empty without labels.
        read: Gives an image by its name, (H, W, 3) uint8. Must survive pickling.
        mean, std: Of pixels in [0, 1].
    """

    splits: Mapping[str, Samples]
    predict: Samples
    class_names: list[str]
    read: Read
    mean: Colour
    std: Colour
