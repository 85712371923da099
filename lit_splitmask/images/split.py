"""Train, validation and test: cut where they are missing, cleaned of images that they share. Pure functions."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from lit_splitmask.errors import UserError
from lit_splitmask.seeding import derive_seed

Splits = dict[str, list[str]]
Node = TypeVar("Node", bound=Hashable)


@dataclass(frozen=True)
class Dropped:
    """An image taken out of a split, because another split holds the same pixels."""

    file: str
    split: str
    same_as: str
    same_split: str

    def describe(self) -> str:
        """One line for people."""
        return f"{self.file} ({self.split}) is identical to {self.same_as} ({self.same_split})"


def check_shares(val_share: float, test_share: float) -> None:
    """Checks that something is left to train on.

    Raises:
        UserError: A share is outside [0, 1), or both together leave nothing.
    """
    if not (0 <= val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        raise UserError(
            f"val_share={val_share} and test_share={test_share} must be at least 0 and together less than 1, so that "
            "images are left to train on."
        )


def drop_shared(given: Mapping[str, Sequence[str]], hashes: Mapping[str, str]) -> tuple[Splits, list[Dropped]]:
    """Takes images out of train that val or test hold too, and out of val those that test holds."""
    splits = {name: list(files) for name, files in given.items()}
    dropped = []
    owner: dict[str, tuple[str, str]] = {}
    for name in ("test", "val", "train"):
        for file in splits.get(name, []):
            split, other = owner.get(hashes[file], (name, file))
            if split != name:
                dropped.append(Dropped(file, name, other, split))
        for file in splits.get(name, []):
            owner.setdefault(hashes[file], (name, file))
    gone = {entry.file for entry in dropped}
    return {name: [file for file in files if file not in gone] for name, files in splits.items()}, dropped


def find_conflicts(files: Sequence[str], hashes: Mapping[str, str], labels: Mapping[str, int]) -> list[list[str]]:
    """Groups of pixel-identical images that carry different labels."""
    groups = group_by_hash(files, hashes)
    return [group for group in groups if len({labels[file] for file in group}) > 1]


def group_by_hash(files: Sequence[str], hashes: Mapping[str, str]) -> list[list[str]]:
    """Pixel-identical images together, in the order of their first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for file in files:
        groups[hashes[file]].append(file)
    return list(groups.values())


def join(hashes: Mapping[str, str], groups: Mapping[str, str]) -> dict[str, str]:
    """A key by file, equal for files that must stay together: of the same pixels, or of one group, directly or in turn.

    Args:
        hashes: Of the pixels, by file.
        groups: By file; files without one may be missing.
    """
    sets: DisjointSets[str] = DisjointSets()
    for file, digest in hashes.items():
        if file in groups:
            sets.unite(f"pixels {digest}", f"group {groups[file]}")
    return {file: sets.find(f"pixels {digest}") for file, digest in hashes.items()}


def cut(
    files: Sequence[str],
    hashes: Mapping[str, str],
    labels: Mapping[str, int],
    *,
    shares: Mapping[str, float],
    seed: int,
) -> Splits:
    """Cuts images into train and the named shares, class by class.

    Files of one key stay together and count once, under the label of the first. A class of at least three distinct keys has
    one in train and, sizes permitting, one in every share; a smaller one stays in train.

    Args:
        files: Sorted.
        hashes: A key by file: the hash of its pixels, or what :func:`join` makes of it.
        labels: By file; -1 is a class like any other.
        shares: Of each split to be cut off, such as ``{"test": 0.2, "val": 0.1}``.
        seed: Decides who goes where.
    """
    by_class: dict[int, list[list[str]]] = defaultdict(list)
    for group in group_by_hash(files, hashes):
        by_class[labels[group[0]]].append(group)
    splits: Splits = {name: [] for name in ("train", *shares)}
    for label, groups in sorted(by_class.items()):
        order = np.random.default_rng(derive_seed(seed, "split", label)).permutation(len(groups))
        start = 0
        for name, count in _counts(len(groups), shares).items():
            for place in order[start : start + count]:
                splits[name] += groups[place]
            start += count
        for place in order[start:]:
            splits["train"] += groups[place]
    return {name: sorted(members) for name, members in splits.items()}


def _counts(num_groups: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of a class go to each share: rounded, at least one each, and one left for train."""
    if num_groups < 3:
        return dict.fromkeys(shares, 0)
    counts = {name: max(1, round(share * num_groups)) if share > 0 else 0 for name, share in shares.items()}
    while sum(counts.values()) > num_groups - 1:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


def nested_share(labels: Sequence[int], share: float, seed: int) -> list[int]:
    """A stratified part of the images, at least one a class; a smaller share is a subset of a larger one.

    Args:
        labels: Of all images.
        share: In (0, 1].
        seed: Decides who is in.

    Returns:
        Sorted places in ``labels``.

    Raises:
        UserError: The share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"label_share={share} must be more than 0 and at most 1: 0.1 uses a tenth of the labels.")
    by_class: dict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        by_class[label].append(place)
    chosen: list[int] = []
    for label, places in by_class.items():
        order = np.random.default_rng(derive_seed(seed, "label share", label)).permutation(len(places))
        chosen += [places[place] for place in order[: max(1, round(share * len(places)))]]
    return sorted(chosen)


class DisjointSets(Generic[Node]):
    """Nodes, each in a set of its own until sets are united."""

    def __init__(self) -> None:
        self._parents: dict[Node, Node] = {}

    def find(self, node: Node) -> Node:
        """The node that stands for the set of a node."""
        parents = self._parents
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def unite(self, one: Node, other: Node) -> None:
        """Makes one set of two."""
        self._parents[self.find(one)] = self.find(other)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._parents)
