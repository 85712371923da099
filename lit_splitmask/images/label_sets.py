"""Several labels of an image as one: the name of a set of classes, and back. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

SEPARATOR = "\x1f"
"""Between the names of a set: ASCII's unit separator, which no class name has."""


def join(names: Iterable[str]) -> str:
    """The name of a set of classes, in any order; empty for the empty set."""
    return SEPARATOR.join(sorted(set(names)))


def names_in(one: str) -> list[str]:
    """The names of the classes in a set."""
    return [name for name in one.split(SEPARATOR) if name]


def classes_of(sets: Iterable[str]) -> list[str]:
    """The sorted names of all classes in sets."""
    return sorted({name for one in sets for name in names_in(one)})


def table(sets: Sequence[str]) -> np.ndarray:
    """Which classes each set has: (M, K) bool, K as in :func:`classes_of`."""
    number = {name: column for column, name in enumerate(classes_of(sets))}
    has = np.zeros((len(sets), len(number)), dtype=bool)
    for row, one in enumerate(sets):
        has[row, [number[name] for name in names_in(one)]] = True
    return has


def rarest(sets: Mapping[str, str]) -> dict[str, str]:
    """The rarest class of each image, by which splits are cut: most sets of classes are too rare for that.

    Args:
        sets: Set of classes by image.
    """
    count = Counter(name for one in sets.values() for name in one.split(SEPARATOR))
    return {file: min(one.split(SEPARATOR), key=lambda name: (count[name], name)) for file, one in sets.items()}
