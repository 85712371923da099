import unicodedata
from pathlib import Path

import pytest
from empty_folders import fill, refuse, sizes, touch

from lit_splitmask.errors import UserError
from lit_splitmask.images.layout import LabelsMode, LayoutName, understand


def test_class_folders_are_found(tmp_path: Path) -> None:
    layout = understand(touch(tmp_path, "cat/b.jpg", "cat/deep/a.PNG", "ant/c.webp"))
    assert layout.classes == ["ant", "cat"]
    assert layout.labels() == {"ant/c.webp": 0, "cat/b.jpg": 1, "cat/deep/a.PNG": 1}
    assert layout.given == {}
    assert layout.because == "its folders are ant, cat"


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("train", "validation", "test"),
        ("Train", "Val", "Test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "DEV", "TEST"),
        ("train_set", "val_set", "test_set"),
        ("seg_train", "seg_val", "seg_test"),
        ("train-images", "valid-images", "test-images"),
        ("images_train", "images_dev", "images_test"),
        ("train2017", "val2017", "test2017"),
        ("trainset", "devset", "testset"),
        ("TrainData", "ValidData", "TestData"),
        ("training", "validation", "evaluation"),
        ("train", "dev", "holdout"),
        ("cars_train", "cars_val", "cars_test"),
        ("flowers-train-v2", "flowers-valid-v2", "flowers-test-v2"),
        ("brainTrain", "brainVal", "brainTest"),
    ],
)
def test_split_folders_are_found_in_any_case_and_dress(tmp_path: Path, train: str, val: str, test: str) -> None:
    touch(tmp_path, f"{train}/a/1.jpg", f"{train}/b/2.jpg", f"{val}/b/3.jpg", f"{test}/a/4.jpg", "x.jpg")
    layout = understand(tmp_path)
    assert layout.classes == ["a", "b"]
    assert sizes(layout) == {"train": 2, "val": 1, "test": 1}
    assert layout.labels()[f"{val}/b/3.jpg"] == 1
    assert "1 images outside" in layout.description
    assert layout.left_out == {"beside the split folders": ["x.jpg"]}
    for name in (train, val, test):
        assert name in layout.because


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "dev"), ("seg_train", "seg_test")])
def test_two_split_folders_are_enough(tmp_path: Path, names: tuple[str, str]) -> None:
    layout = understand(fill(tmp_path, *(f"{name}/{label}" for name in names for label in ("glioma", "pituitary"))))
    assert layout.classes == ["glioma", "pituitary"]
    assert len(layout.given) == 2


def test_split_folders_without_classes_have_no_labels(tmp_path: Path) -> None:
    layout = understand(touch(tmp_path, "train/1.jpg", "val/2.jpg", "annotations/notes.json"))
    assert layout.classes == []
    assert set(layout.given) == {"train", "val"}
    assert understand(fill(tmp_path / "one", "train/images", "val/images")).classes == []


@pytest.mark.parametrize(
    "names",
    [
        ("bus", "car", "train"),
        ("Bus", "Tram", "Train"),
        ("trains", "planes"),
        ("contrast", "plain"),
        ("testosterone", "insulin"),
        ("protest", "concert", "train"),
        ("valid", "invalid"),
        ("steam_train", "diesel_train"),
        ("latest", "strain"),
        ("developer", "tester"),
    ],
)
def test_classes_may_have_names_that_sound_like_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert understand(fill(tmp_path, *names)).classes == sorted(names)


def test_classes_may_all_hold_folders_even_one_called_train(tmp_path: Path) -> None:
    fill(tmp_path, "bus/city", "bus/coach", "car/old", "car/new", "train/steam", "train/diesel")
    assert understand(tmp_path).classes == ["bus", "car", "train"]


@pytest.mark.parametrize("files", [("1.jpg", "2.jpg"), ("one/1.jpg", "one/2.jpg"), ("one/two/1.jpg", "one/two/2.jpg")])
def test_anything_else_has_no_labels(tmp_path: Path, files: tuple[str, ...]) -> None:
    layout = understand(touch(tmp_path, *files))
    assert layout.classes == []
    assert set(layout.labels().values()) == {-1}
    assert layout.files == sorted(files)


def test_labels_can_be_ignored(tmp_path: Path) -> None:
    assert understand(touch(tmp_path, "a/1.jpg", "b/2.jpg"), "none").classes == []
    layout = understand(fill(tmp_path / "splits", "Train/a", "Train/b", "Test/a"), "none")
    assert (layout.classes, sizes(layout)) == ([], {"train": 8, "test": 4})


@pytest.mark.parametrize("files", [("1.jpg",), ("one/1.jpg",), ("a/1.jpg", "b/2.jpg", "3.jpg"), ("train/1.jpg",)])
def test_missing_class_folders_are_an_error_where_they_are_insisted_on(tmp_path: Path, files: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="at least two class folders"):
        understand(touch(tmp_path, *files), "folders")


# Doubled folders


@pytest.mark.parametrize("inner", ["{name}", "{name}_images", "data", "images"])
def test_class_folders_may_lie_one_folder_deeper_in_every_split(tmp_path: Path, inner: str) -> None:
    for name in ("seg_train", "seg_test"):
        fill(tmp_path, *(f"{name}/{inner.format(name=name)}/{label}" for label in ("sea", "forest")))
    fill(tmp_path, "seg_pred/seg_pred")
    layout = understand(tmp_path)
    assert layout.classes == ["forest", "sea"]
    assert sizes(layout) == {"test": 8, "train": 8}
    ((where, files),) = layout.left_out.items()
    assert "in seg_pred (" in where
    assert f"--data.root {tmp_path / 'seg_pred'}" in where
    assert len(files) == 4


@pytest.mark.parametrize("names", [("train", "test"), ("signs_train", "signs_test")])
def test_doubled_split_folders_need_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    layout = understand(fill(tmp_path, *(f"{name}/{name}" for name in names)))
    assert (layout.classes, sizes(layout)) == ([], {"test": 4, "train": 4})


@pytest.mark.parametrize("doubled", ["train", "test"])
def test_only_some_doubled_split_folders_are_an_error(tmp_path: Path, doubled: str) -> None:
    for name in ("train", "test"):
        inner = f"{name}/{name}" if name == doubled else name
        fill(tmp_path, f"{inner}/a", f"{inner}/b")
    folder = tmp_path / doubled
    refuse(
        tmp_path,
        f"{folder} holds a single folder, {doubled}",
        f"move the content of {folder / doubled} up into {folder}",
    )


# Class names


@pytest.mark.parametrize("mode", ["auto", "folders"])
def test_classes_that_train_lacks_are_named(tmp_path: Path, mode: LabelsMode) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/Zebra/3.jpg")
    with pytest.raises(UserError, match=r"val of .* has classes that train lacks: Zebra"):
        understand(tmp_path, mode)


def test_class_names_that_differ_in_capitals_are_pointed_out(tmp_path: Path) -> None:
    touch(tmp_path, "train/Red Fox/1.jpg", "train/dog/2.jpg", "val/red fox/3.jpg")
    refuse(tmp_path, "red fox differs from Red Fox in capitals or spaces only")


@pytest.mark.parametrize("names", [("café", "thé"), ("Ångström", "Ørsted"), ("한글", "漢字")])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_class_names_are_the_same_composed_and_decomposed(
    tmp_path: Path, names: tuple[str, str], forms: tuple[str, str]
) -> None:
    for split, form in zip(("train", "val"), forms, strict=True):
        fill(tmp_path, *(f"{split}/{unicodedata.normalize(form, name)}" for name in names))
    layout = understand(tmp_path)
    assert layout.classes == sorted(unicodedata.normalize("NFC", name) for name in names)
    assert set(layout.labels()) == set(layout.files)
    assert {layout.labels()[file] for file in layout.given["val"]} == {0, 1}


def test_a_class_may_lie_in_a_composed_and_a_decomposed_folder(tmp_path: Path) -> None:
    layout = understand(fill(tmp_path, *(unicodedata.normalize(form, "café") for form in ("NFC", "NFD")), "tea"))
    assert layout.classes == ["café", "tea"]
    assert sorted(layout.labels().values()) == [0] * 8 + [1] * 4


# The layout that is said


@pytest.mark.parametrize(
    ("layout", "says"),
    [("splits", "needs a folder for train"), ("subfolders", "needs at least two classes one level down")],
)
def test_a_layout_that_does_not_fit_is_an_error(tmp_path: Path, layout: LayoutName, says: str) -> None:
    with pytest.raises(UserError, match=says):
        understand(fill(tmp_path, "cat", "dog"), layout=layout)


def test_empty_folders_do_not_count(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / "train").mkdir()
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    touch(tmp_path, "notes/readme.txt")
    assert understand(tmp_path).classes == ["cat", "dog"]
