"""How far chance goes: the interval of an accuracy, and what guessing would reach."""

import math
from collections.abc import Mapping, Sequence

from scipy.stats import binomtest

from lit_splitmask.comparison import CONFIDENCE

Interval = tuple[float, float]
"""The ends of an interval, in [0, 1]."""


def interval(accuracy: float, num_images: int) -> Interval:
    """Wilson's interval of an accuracy in [0, 1] over so many images, at least one; it stays in [0, 1].

    It has a width even if all images are right, or all wrong.
    """
    low, high = binomtest(round(accuracy * num_images), num_images).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def interval_of_mean(accuracies: Sequence[float], counts: Sequence[int]) -> Interval:
    """The interval of the mean of accuracies over different images, from Wilson's interval of each (Zou and Donner, 2008).

    It cannot leave the mean of these intervals, so it stays in [0, 1].

    Args:
        accuracies: Accuracies in [0, 1], at least one.
        counts: Number of images of each, at least one.
    """
    mean = sum(accuracies) / len(accuracies)
    ends = [interval(value, count) for value, count in zip(accuracies, counts, strict=True)]
    below = math.hypot(*(value - low for value, (low, _) in zip(accuracies, ends, strict=True)))
    above = math.hypot(*(high - value for value, (_, high) in zip(accuracies, ends, strict=True)))
    return mean - below / len(ends), mean + above / len(ends)


def percent(value: float) -> str:
    """A share in [0, 1] as text."""
    return f"{100 * value:.1f} %"


def interval_text(ends: Interval) -> str:
    """An interval as text, in percent."""
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def always_largest(counts: Mapping[str, int]) -> str:
    """The accuracy of always answering the most frequent class, as text."""
    largest = max(counts, key=lambda name: counts[name])
    share = counts[largest] / max(1, sum(counts.values()))
    return f"{percent(share)} by always answering {largest}, the most frequent"


def chance_level(counts: Mapping[str, int]) -> str:
    """A sentence on the accuracy of guessing.

    Args:
        counts: Number of images of each class that is guessed among.
    """
    return f"Chance: {100 / len(counts):.1f} % by guessing among {len(counts):,} classes, {always_largest(counts)}."


def chance_of_labels(counts: Mapping[str, int], num_images: int) -> str:
    """A sentence on the mean average precision of guessing, where an image may have several labels.

    Guesses have the share of the images that have the label as their average precision.

    Args:
        counts: Number of images that have each label.
        num_images: Number of images.
    """
    shares = [count / num_images for count in counts.values() if count]
    mean = sum(shares) / max(1, len(shares))
    return f"Chance: an mAP of {percent(mean)} by guessing, the mean share of the images that have a label."


def chance_of_maps(pixels: Mapping[str, int]) -> str:
    """A sentence on the scores of label maps of one class.

    Args:
        pixels: Number of labelled pixels of each class.
    """
    largest = max(pixels, key=lambda name: pixels[name])
    share = pixels[largest] / max(1, sum(pixels.values()))
    mean = share / max(1, sum(count > 0 for count in pixels.values()))
    return f"Chance: mIoU {percent(mean)} and pixel accuracy {percent(share)} by always answering {largest}, the most frequent."
