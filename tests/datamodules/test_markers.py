"""Published datasets are not taken for somebody's own folder."""

from pathlib import Path

import pytest
from replicas import FORMS, REPLICAS, class_folders, draw, imagenet

from lit_splitmask import datamodules
from lit_splitmask.commands import recipes
from lit_splitmask.datamodules.markers import MARKED, check_not_published, published_set
from lit_splitmask.errors import UserError
from lit_splitmask.images.tree import Tree

NAMES = [dataset.__name__ for dataset in MARKED]
LISTED = [name for name in NAMES if name != "ImageNet"]  # whose official layout is that of ordinary class folders
LISTED_FORMS = [(name, form) for name, form in FORMS if name in NAMES and "class folders" not in form]


def test_every_dataset_with_lists_of_its_own_has_markers_and_recipes() -> None:
    assert {*NAMES, "ADE20K", "COCO"} == set(REPLICAS)
    for name in REPLICAS:
        dataset = getattr(datamodules, name)
        assert bool(dataset.markers) == (name in NAMES)
        assert set(dataset.recipes) <= set(recipes.available())
        assert recipes.read(dataset.recipes[0])["data"]["class_path"] == name


@pytest.mark.parametrize("name", LISTED)
def test_the_official_layout_is_refused_with_its_recipes(name: str, tmp_path: Path) -> None:
    REPLICAS[name](tmp_path)
    check_is_refused(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "form"), [one for one in LISTED_FORMS if one != ("ImageNet", "one folder deeper")], ids=str
)
def test_other_forms_are_refused_with_their_recipes(name: str, form: str, tmp_path: Path) -> None:
    FORMS[name, form](tmp_path)
    check_is_refused(name, tmp_path)


def check_is_refused(name: str, root: Path) -> None:
    dataset = getattr(datamodules, name)
    tree = Tree.read(root)
    found = published_set(root, tree)
    assert found is not None
    assert (found.title, found.recipes) == (dataset.facts.title, dataset.recipes)
    with pytest.raises(UserError, match=f"holds the published {dataset.facts.title}.*--recipe {dataset.recipes[0]}"):
        check_not_published(root, tree)


def test_two_domains_are_both_named(tmp_path: Path) -> None:
    for name in ("Clipart", "Sketch"):
        REPLICAS[name](tmp_path)
    with pytest.raises(UserError, match=r"Clipart and Sketch, whose lists.*splitmask_clipart.*splitmask_sketch"):
        check_not_published(tmp_path, Tree.read(tmp_path))


def test_class_folders_of_a_published_dataset_are_ordinary_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "cars")
    class_folders(tmp_path / "sorted", "cars_")  # cars_train/<class>/, cars_test/<class>/
    imagenet(tmp_path / "imagenette")
    for folder in ("a", "b"):
        draw(tmp_path / f"flat/train/{folder}/0.jpg", 0)
    draw(tmp_path / "flat/val/0.jpg", 0)
    for name in ("cars", "cars/car_data/car_data", "sorted", "imagenette", "imagenette/train", "flat"):
        assert published_set(tmp_path / name, Tree.read(tmp_path / name)) is None
        check_not_published(tmp_path / name, Tree.read(tmp_path / name))
