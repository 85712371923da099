"""The published datasets in the other forms in which they are to be had, and those without their lists."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from folder_data import ready, stand_in
from replicas import FORMS, REPLICAS, cars, cars_in_one_list, cars_of_kaggle, imagenet, imagenet_of_kaggle

from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import find_folder
from lit_splitmask.errors import UserError

Make = Callable[..., ListedData]


def labels_of(data: ListedData) -> dict[str, str]:
    """Class name by image, of all images with a label."""
    return {
        file: data.class_names[label]
        for samples in data.source.splits.values()
        for file, label in zip(samples.files, samples.labels.tolist(), strict=True)
        if label >= 0
    }


@pytest.mark.parametrize(("name", "form"), FORMS, ids=str)
def test_another_form_is_read_as_the_official_layout(
    name: str, form: str, make_published: Make, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    expected = FORMS[name, form](tmp_path / "data")
    data = ready(make_published(name, replica=False))
    assert {split: len(samples) for split, samples in data.source.splits.items()} == {"train": 6, "test": 4}
    assert labels_of(data) == expected
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 16, 16)
    if expected:
        assert all(
            re.search("test|val|car_ims", file.replace("train_val", "")) for file in data.source.splits["test"].files
        )


def test_the_list_of_all_cars_says_which_are_for_the_test(make_published: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    cars_in_one_list(tmp_path / "data")
    data = ready(make_published("StanfordCars", replica=False))
    assert [Path(file).stem for file in data.source.splits["test"].files] == ["000003", "000004", "000007", "000010"]


@pytest.mark.parametrize("with_list", [False, True])
def test_cars_whose_lists_do_not_fit_are_read_without_labels(
    with_list: bool, make_published: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kaggle's cars_annos.mat numbers other images than those beside it: its labels would be wrong."""
    root = tmp_path / "data"
    root.mkdir()
    cars_of_kaggle(root)
    for path in (root / "car_devkit/devkit").iterdir():
        path.unlink()
    if with_list:
        cars_in_one_list(tmp_path)
        (tmp_path / "cars_annos.mat").rename(root / "cars_annos.mat")
    data = ready(make_published("StanfordCars", replica=False))
    assert {split: len(samples) for split, samples in data.source.splits.items()} == {"train": 6, "test": 4}
    assert labels_of(data) == {}
    assert "read without labels, which is enough to pre-train: cars_meta.mat, cars_train_annos.mat" in caplog.text
    assert ("cars_annos.mat names other images (car_ims/)" in caplog.text) == with_list
    data.trainer = stand_in(lightning_module=type("Module", (), {"needs_labels": True})())  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"has no labels, which fine-tuning needs. Stanford Cars is no longer"):
        data.setup("fit")


def test_the_training_images_of_imagenet_alone_are_enough_to_pretrain(
    make_published: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    imagenet(tmp_path / "data")
    (tmp_path / "data/val").rename(tmp_path / "val")
    data = ready(make_published("ImageNet", replica=False))
    assert {split: len(samples) for split, samples in data.source.splits.items()} == {"train": 6}
    assert "has no validation images, so there is no test split" in caplog.text


def test_validation_images_of_imagenet_without_their_classes_are_refused_with_the_way(
    make_published: Make, tmp_path: Path
) -> None:
    imagenet_of_kaggle(tmp_path / "data")
    solution = tmp_path / "data/LOC_val_solution.csv"
    lines = solution.read_text().splitlines()
    solution.write_text("\n".join(lines[:-1]))
    with pytest.raises(
        UserError, match=r"LOC_val_solution.csv gives no class to the validation image ILSVRC2012_val_00000001"
    ):
        make_published("ImageNet", replica=False).prepare_data()
    solution.write_text("id,class\n1,2\n")
    with pytest.raises(UserError, match="has the columns id, class, not ImageId"):
        make_published("ImageNet", replica=False).prepare_data()
    solution.unlink()
    with pytest.raises(UserError, match=r"The 4 validation images .* not sorted .* put LOC_val_solution.csv .*devkit"):
        make_published("ImageNet", replica=False).prepare_data()


def test_kaggles_list_is_found_above_the_folder_of_the_images(make_published: Make, tmp_path: Path) -> None:
    imagenet_of_kaggle(tmp_path / "kaggle")
    (tmp_path / "data").symlink_to(tmp_path / "kaggle/ILSVRC/Data/CLS-LOC")
    assert len(ready(make_published("ImageNet", replica=False)).source.splits["test"]) == 4


def test_a_damaged_development_kit_is_refused(make_published: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    FORMS["ImageNet", "development kit"](tmp_path / "data")
    (tmp_path / "data/ILSVRC2012_devkit_t12/data/meta.mat").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"meta\.mat beside it is damaged"):
        make_published("ImageNet", replica=False).prepare_data()


def test_official_layouts_come_before_others(make_published: Make, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    labels = cars(root)
    cars_in_one_list(root)
    assert labels_of(ready(make_published("StanfordCars", replica=False))) == labels


def test_a_folder_is_found_at_most_two_levels_down_and_the_closest_first(tmp_path: Path) -> None:
    for folder in ("a/b/c", "d/e", ".hidden"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x").touch()
    assert find_folder(tmp_path, "x") == "d/e/"
    assert find_folder(tmp_path / "a", "x") == "b/c/"
    assert find_folder(tmp_path, "x", "y") is None
    assert find_folder(tmp_path / "none", "x") is None
    (tmp_path / "x").touch()
    assert find_folder(tmp_path, "x") == ""
    assert set(REPLICAS) >= {name for name, _ in FORMS}
