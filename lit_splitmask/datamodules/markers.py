"""Finds published datasets in folders, so that they are not mistaken for a user's own images."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.published.domainnet import Clipart, Painting, Sketch
from lit_splitmask.datamodules.published.food101 import Food101
from lit_splitmask.datamodules.published.imagenet import ImageNet
from lit_splitmask.datamodules.published.inaturalist import INaturalist2018, INaturalist2019
from lit_splitmask.datamodules.published.stanford_cars import StanfordCars
from lit_splitmask.errors import UserError
from lit_splitmask.images.tree import Tree

MARKED: tuple[type[ListedData], ...] = (
    StanfordCars,
    INaturalist2018,
    INaturalist2019,
    Food101,
    ImageNet,
    Clipart,
    Painting,
    Sketch,
)
"""Datasets whose own lists say which images are for training. ADE20K and COCO are read as folders with annotations."""

_DEPTH = 3


@dataclass(frozen=True)
class Published:
    """A published dataset that a folder holds.

    Attributes:
        title: Its name.
        recipes: Its recipes, that of pre-training first.
        folder: The folder that holds it.
    """

    title: str
    recipes: tuple[str, ...]
    folder: Path


def published_set(root: Path, tree: Tree) -> Published | None:
    """The published dataset that a folder holds, itself or in its only folder of images; None if it is none of them."""
    return next(_published_sets(root, tree), None)


def _published_sets(root: Path, tree: Tree) -> Iterator[Published]:
    for inside in _only_folders(tree):
        for dataset in MARKED:
            if any(all(_matches(root, tree, f"{inside}{pattern}") for pattern in group) for group in dataset.markers):
                yield Published(dataset.facts.title, dataset.recipes, root / inside)


def _only_folders(tree: Tree) -> Iterator[str]:
    """The root, and the folder that holds all of its images if there is only one, and so on; each with a slash at its end."""
    prefix = ""
    for _ in range(_DEPTH + 1):
        yield prefix
        first = tree.images[0] if tree.images else ""
        name, separator, _ = first[len(prefix) :].partition("/")
        prefix += f"{name}/"
        if not separator or not all(file.startswith(prefix) for file in tree.images):
            return


def _matches(root: Path, tree: Tree, pattern: str) -> bool:
    """Whether there is such a file or folder; a pattern with an asterisk is for images."""
    if "*" not in pattern:
        return (root / pattern).exists()
    folder, _, name = pattern.rpartition("/")
    if not (root / folder).is_dir():
        return False
    inside = (file for file in tree.images if file.startswith(f"{folder}/"))
    return any("/" not in file[len(folder) + 1 :] and fnmatchcase(file[len(folder) + 1 :], name) for file in inside)


def check_not_published(root: Path, tree: Tree) -> None:
    """Checks that a folder is not a published dataset, whose test images would join the training.

    Raises:
        UserError: It is; names the recipes.
    """
    found = list(_published_sets(root, tree))
    if found:
        titles = " and ".join(dict.fromkeys(one.title for one in found))
        recipes = " or ".join(
            f"--recipe {name}" for name in dict.fromkeys(name for one in found for name in one.recipes)
        )
        raise UserError(
            f"{found[0].folder} holds the published {titles}, whose lists say which images are for training: pass {recipes}; or "
            "--layout flat to use all images without labels, test images too."
        )
