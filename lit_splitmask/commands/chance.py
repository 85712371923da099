"""How far chance goes: the standard error of an accuracy, and the accuracy of guessing."""

import math
from collections.abc import Mapping


def standard_error(accuracy: float, num_images: int) -> float:
    """Standard error of an accuracy in [0, 1] over so many images.

    Two images of each outcome are added (Agresti and Coull, 1998), so that few images that are all right, or all wrong, do not
    look certain.
    """
    share = (accuracy * num_images + 2) / (num_images + 4)
    return math.sqrt(share * (1 - share) / (num_images + 4))


def with_error(accuracy: float, error: float) -> str:
    """An accuracy in [0, 1] and its standard error as text, in percent."""
    return f"{100 * accuracy:.1f} ± {100 * error:.1f} %"


def always_largest(counts: Mapping[str, int]) -> str:
    """The accuracy of always answering the most frequent class, as text."""
    largest = max(counts, key=lambda name: counts[name])
    share = counts[largest] / max(1, sum(counts.values()))
    return f"{100 * share:.1f} % by always answering {largest}, the most frequent"


def chance_level(counts: Mapping[str, int]) -> str:
    """A sentence on the accuracy of guessing.

    Args:
        counts: Number of images of each class that is guessed among.
    """
    return f"Chance: {100 / len(counts):.1f} % by guessing among {len(counts):,} classes, {always_largest(counts)}."
