"""Train, validation and test splits: cuts missing ones and removes images that two of them share. Pure functions."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lit_splitmask.errors import UserError
from lit_splitmask.seeding import derive_seed

Splits = dict[str, list[str]]

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Dropped:
    """An image removed from a split because another split holds the same pixels.

    Attributes:
        file, split: The image, and the split that it was removed from.
        same_as, same_split: The identical image that stays, and its split.
    """

    file: str
    split: str
    same_as: str
    same_split: str

    def describe(self) -> str:
        """One line for a log."""
        return f"{self.file} ({self.split}) is identical to {self.same_as} ({self.same_split})"


def check_shares(val_share: float, test_share: float) -> None:
    """Checks that the shares leave images to train on.

    Raises:
        UserError: A share is outside [0, 1), or their sum is 1 or more.
    """
    if not (0 <= val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        raise UserError(
            f"val_share={val_share} and test_share={test_share} must each be at least 0, and their sum less than 1, to leave "
            "images to train on."
        )


def drop_shared(given: Mapping[str, Sequence[str]], hashes: Mapping[str, str]) -> tuple[Splits, list[Dropped]]:
    """Removes from train the images that val or test also hold, and from val those that test also holds."""
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
    removed = {entry.file for entry in dropped}
    return {name: [file for file in files if file not in removed] for name, files in splits.items()}, dropped


def find_conflicts(files: Sequence[str], hashes: Mapping[str, str], labels: Mapping[str, int]) -> list[list[str]]:
    """Groups of pixel-identical images that have different labels; -1 is no label."""
    groups = group_by_hash(files, hashes)
    return [group for group in groups if len({labels[file] for file in group} - {-1}) > 1]


def group_by_hash(files: Sequence[str], hashes: Mapping[str, Hashable]) -> list[list[str]]:
    """Groups of files with equal hashes, ordered by their first file."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for file in files:
        groups[hashes[file]].append(file)
    return list(groups.values())


def join(hashes: Mapping[str, str], groups: Mapping[str, str]) -> dict[str, int]:
    """A key by file, equal for files that must stay together: those with the same pixels or group, directly or in a chain.

    Args:
        hashes: Hash of the pixels, by file.
        groups: Group by file; files without one are missing.
    """
    nodes: dict[str, int] = {}
    edges = []
    for file, digest in hashes.items():
        pixels = nodes.setdefault(f"pixels {digest}", len(nodes))
        group = nodes.setdefault(f"group {groups[file]}", len(nodes)) if file in groups else pixels
        edges.append((pixels, group))
    component = components(np.array(edges, dtype=np.int64).reshape(-1, 2), len(nodes))
    return {file: component[pixels] for file, (pixels, _) in zip(hashes, edges, strict=True)}


def components(edges: np.ndarray, num_nodes: int) -> list[int]:
    """The number of each node's connected component.

    Args:
        edges: (m, 2) integers, pairs of nodes.
        num_nodes: Number of nodes.
    """
    if not len(edges):
        return list(range(num_nodes))
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(num_nodes, num_nodes))
    numbers: list[int] = connected_components(graph, directed=False)[1].tolist()
    return numbers


def cut(
    files: Sequence[str],
    keys: Mapping[str, Hashable],
    labels: Mapping[str, int],
    *,
    shares: Mapping[str, float],
    seed: int,
) -> Splits:
    """Cuts images into train and the named splits, class by class.

    Files with equal keys stay together and count as one, under the label of the first that has one. A class with at least three
    distinct keys has one in train and, sizes permitting, one in every other split; a smaller class stays in train, and so do
    files without a label if others have one.

    Args:
        files: Sorted file names.
        keys: Key by file: the hash of its pixels, or the key from :func:`join`.
        labels: Label by file; -1 without a label.
        shares: Share of each split to cut, such as ``{"test": 0.2, "val": 0.1}``.
        seed: Seed of the assignment.
    """
    by_class: dict[int, list[list[str]]] = defaultdict(list)
    for group in group_by_hash(files, keys):
        by_class[next((labels[file] for file in group if labels[file] >= 0), -1)].append(group)
    splits: Splits = {name: [] for name in ("train", *shares)}
    for label, groups in sorted(by_class.items()):
        order = np.random.default_rng(derive_seed(seed, "split", label)).permutation(len(groups))
        start = 0
        counts = _counts(len(groups), shares) if label >= 0 or len(by_class) == 1 else {}
        for name, count in counts.items():
            for index in order[start : start + count]:
                splits[name] += groups[index]
            start += count
        for index in order[start:]:
            splits["train"] += groups[index]
    return {name: sorted(members) for name, members in splits.items()}


def _counts(num_groups: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many groups of a class go to each split: rounded, at least one each, and one left for train."""
    if num_groups < 3:
        return dict.fromkeys(shares, 0)
    counts = {name: max(1, round(share * num_groups)) if share > 0 else 0 for name, share in shares.items()}
    while sum(counts.values()) > num_groups - 1:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


def quantiles(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The part of the range that each number falls into, which serves as its class when splits are cut: (n,) int64 from 0.

    There are up to ten parts of about equal size, of at least ten numbers each if there are as many. Equal numbers share one.
    """
    parts = max(1, min(10, len(values) // 10))
    return np.searchsorted(np.sort(values), values, side="left") * parts // max(1, len(values))


def nested_share(labels: Sequence[int], share: float, seed: int) -> list[int]:
    """A stratified subset of the images, at least one per class; a smaller share gives a subset of a larger one.

    Args:
        labels: Labels of all images.
        share: Share of the images, in (0, 1].
        seed: Seed of the choice.

    Returns:
        Sorted indices into ``labels``.

    Raises:
        UserError: The share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"label_share={share} must be more than 0 and at most 1: 0.1 uses a tenth of the labels.")
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[label].append(index)
    chosen: list[int] = []
    for label, members in by_class.items():
        order = np.random.default_rng(derive_seed(seed, "label share", label)).permutation(len(members))
        chosen += [members[index] for index in order[: max(1, round(share * len(members)))]]
    return sorted(chosen)
