"""The published datasets, on tiny replicas of their official layouts."""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folder_data import ready
from replicas import REPLICAS, domain, food

from lit_splitmask import datamodules
from lit_splitmask.commands import recipes, tables
from lit_splitmask.datamodules import published
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.paper import TABLE_3
from lit_splitmask.errors import UserError

NAMES = list(REPLICAS)

Make = Callable[..., ListedData]


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(one) for one in cls.__subclasses__()))


def test_every_published_dataset_is_exported_and_has_a_replica_and_a_recipe() -> None:
    for module in pkgutil.iter_modules(published.__path__, f"{published.__name__}."):
        importlib.import_module(module.name)
    ours = {cls for cls in subclasses(ListedData) if cls.__module__.startswith(f"{published.__name__}.")}
    names = {cls.__name__ for cls in ours if not cls.__name__.startswith("_")}
    assert names == {name for name in datamodules.__all__ if getattr(datamodules, name) in ours}
    assert names == set(NAMES)
    pretrained_on = {recipes.read(name).get("data", {}).get("class_path") for name in recipes.available()}
    assert names <= pretrained_on
    assert len(tables.published_sets()) == len(names)
    assert len({getattr(datamodules, name).facts.title for name in names}) == len(names)


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_in_the_official_layout_is_read(
    name: str, make_published: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = REPLICAS[name](tmp_path / "data")
    data = ready(make_published(name, replica=False))
    splits = data.source.splits
    assert {split: len(samples) for split, samples in splits.items()} == {"train": 6, "test": 4}
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert data.num_classes == (2 if data.facts.labelled else 0)
    found = {
        file: data.class_names[label]
        for samples in splits.values()
        for file, label in zip(samples.files, samples.labels.tolist(), strict=True)
        if label >= 0
    }
    assert found == labels
    if data.facts.labelled:
        assert sorted(data.train_samples.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert f"{data.facts.title}: found 6 training and 4 test images, expected" in caplog.text
    assert "Continuing with the images found" in caplog.text
    next(iter(data.test_dataloader()))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_dataset_is_refused_with_where_to_get_it(name: str, make_published: Make, tmp_path: Path) -> None:
    facts = getattr(datamodules, name).facts
    for folder in (False, True):
        if folder:
            (tmp_path / "data").mkdir()
        with pytest.raises(UserError) as error:
            make_published(name, replica=False).prepare_data()
        assert facts.where in str(error.value)
        assert ("lacks" if folder else "does not exist") in str(error.value)


@pytest.mark.parametrize("name", [name for name in NAMES if getattr(datamodules, name).fetch is ListedData.fetch])
def test_a_dataset_without_automatic_download_is_refused_with_where_to_get_it(name: str, make_published: Make) -> None:
    with pytest.raises(UserError, match="has no automatic download") as error:
        make_published(name, replica=False, download=True).prepare_data()
    assert getattr(datamodules, name).facts.where in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_budget_is_table_3s_or_follows_the_rule(name: str, make_published: Make) -> None:
    data = ready(make_published(name))
    if data.facts.title in TABLE_3:
        # whole epochs of a batch of 4
        assert data.schedule.passes == pytest.approx(TABLE_3[data.facts.title], rel=0.02)
    else:
        assert data.table_passes is None


def test_food_is_downloaded_by_torchvision(
    make_published: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    def fetch(root: str, *, download: bool) -> None:
        assert download
        food(Path(root))

    monkeypatch.setattr(torchvision.datasets, "Food101", fetch)
    assert len(ready(make_published("Food101", replica=False, download=True)).train_samples) == 6


def test_lists_with_windows_line_ends_are_read(make_published: Make, tmp_path: Path) -> None:
    domain(tmp_path / "data", "clipart", "\r\n")
    assert len(ready(make_published("Clipart", replica=False)).train_samples) == 6


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        (
            "Clipart",
            "clipart_train.txt",
            lambda text: text.replace("zebra/train_0.jpg 1", "zebra/train_0.jpg 345"),
            "345",
        ),
        ("Clipart", "clipart_train.txt", lambda text: text.replace(".jpg 1", ".jpg one"), "a path and a label"),
        ("Clipart", "clipart_test.txt", lambda text: text.replace(".jpg 1", ".jpg 0"), "one release"),
        ("Sketch", "sketch_train.txt", lambda text: text + "sketch/zebra/gone.jpg 1\n", "1 of the 11 .*gone.jpg"),
        ("INaturalist2018", "train2018.json", lambda text: text[:-20], "train2018.json is damaged"),
        ("INaturalist2018", "val2018.json", lambda text: text.replace('"category_id": 7', '"category_id": 8'), "8"),
        ("INaturalist2018", "val2018.json", lambda text: text.replace("val1.jpg", "none.jpg"), "2 of the 10 listed"),
        ("Food101", "food-101/meta/test.json", lambda text: text.replace('"pizza":', '"soup":'), "different classes"),
    ],
)
def test_damaged_lists_are_refused(
    name: str, file: str, change: Callable[[str], str], message: str, make_published: Make, tmp_path: Path
) -> None:
    data = make_published(name)
    edit(tmp_path / "data" / file, change)
    with pytest.raises(UserError, match=message):
        data.prepare_data()


def test_damaged_matlab_files_are_refused(make_published: Make, tmp_path: Path) -> None:
    data = make_published("StanfordCars")
    (tmp_path / "data/stanford_cars/devkit/cars_train_annos.mat").write_bytes(b"nothing")
    with pytest.raises(UserError, match="MATLAB"):
        data.prepare_data()


def test_classes_that_only_the_validation_images_of_imagenet_have_are_refused(
    make_published: Make, tmp_path: Path
) -> None:
    data = make_published("ImageNet")
    (tmp_path / "data/val/n01443537").rename(tmp_path / "data/val/n01484850")
    with pytest.raises(UserError, match="has the class n01484850, which train lacks"):
        data.prepare_data()


def test_images_outside_the_class_folders_of_imagenet_are_refused(make_published: Make, tmp_path: Path) -> None:
    data = make_published("ImageNet")
    image = tmp_path / "data/val/n01443537/n01443537_val_0.JPEG"
    image.rename(tmp_path / "data/val" / image.name)
    with pytest.raises(UserError, match=r"n01443537_val_0\.JPEG is outside the class folders"):
        data.prepare_data()
