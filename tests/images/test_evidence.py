"""Which layout a folder has, from all the evidence; and when it is not clear."""

from pathlib import Path

import pytest
from empty_folders import fill, refuse, sizes, touch

from lit_splitmask.images.layout import LabelsMode, understand

# Folders beside splits and classes


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled2017", "train_unlabelled", "Unlabelled_Images"])
@pytest.mark.parametrize("splits", [("train", "test"), ("train",)])
def test_unlabelled_images_beside_splits_are_named_with_the_way_to_use_them(
    tmp_path: Path, name: str, splits: tuple[str, ...]
) -> None:
    fill(tmp_path, *(f"{split}/{label}" for split in splits for label in "ab"), name, f"{name}/deep")
    layout = understand(tmp_path)
    assert layout.classes == ["a", "b"]
    assert set(layout.given) == set(splits)
    ((where, files),) = layout.left_out.items()
    assert f"--data.pool '[{tmp_path / name}]'" in where
    assert len(files) == 8


@pytest.mark.parametrize("name", ["unlabelled", "pred", "predictions"])
def test_unlabelled_images_beside_classes_are_no_class(tmp_path: Path, name: str) -> None:
    layout = understand(fill(tmp_path, "cat", "dog", name))
    assert layout.classes == ["cat", "dog"]
    assert len(layout.files) == 8
    ((where, files),) = layout.left_out.items()
    assert where.startswith(f"in {name} (to pre-train on them too, pass --data.pool")
    assert len(files) == 4
    assert understand(tmp_path, layout="classes").classes == sorted(["cat", "dog", name])


def test_labelled_and_unlabelled_images_side_by_side_are_two_folders_to_pass(tmp_path: Path) -> None:
    fill(tmp_path, "labelled/a", "labelled/b", "unlabelled")
    refuse(tmp_path, f"--data.root {tmp_path / 'labelled'} --data.pool '[{tmp_path / 'unlabelled'}]'")


def test_few_images_in_folders_beside_splits_are_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "val/a", "val/b", count=10)
    fill(tmp_path, "preview")
    layout = understand(tmp_path)
    assert layout.left_out == {
        "in preview, which is neither train nor val nor test": [f"preview/{number}.jpg" for number in range(4)]
    }


def test_many_images_in_folders_beside_splits_are_ambiguous(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "val/a", "val/b", "extra")
    refuse(
        tmp_path, "train, val look like splits", "extra beside them hold 4 of 20", "--layout splits", "--layout classes"
    )
    assert sizes(understand(tmp_path, layout="splits")) == {"train": 8, "val": 8}
    assert understand(tmp_path, layout="classes").classes == ["extra", "train", "val"]
    message = refuse(tmp_path, "--layout splits", "--layout flat", mode="none")
    assert "--layout classes" not in message


def test_many_images_beside_split_folders_are_ambiguous(tmp_path: Path) -> None:
    fill(tmp_path, "train", "val")
    fill(tmp_path, ".", count=20)
    refuse(tmp_path, "20 of 28 images are beside them", "--layout splits", "--layout flat")


@pytest.mark.parametrize("others", [("cat", "dog"), ("control",), ("broken", "blurry", "dark")])
@pytest.mark.parametrize("name", ["test", "Testing", "val", "valid"])
def test_one_folder_named_after_a_split_other_than_train_is_ambiguous(
    tmp_path: Path, name: str, others: tuple[str, ...]
) -> None:
    fill(tmp_path, name, *others)
    refuse(tmp_path, f"{name} looks like a split", "--layout classes", "--layout flat", str(tmp_path / name))
    assert understand(tmp_path, layout="classes").classes == sorted([name, *others])
    assert understand(tmp_path, layout="flat").classes == []


@pytest.mark.parametrize("folders", [("train", "more"), ("train/a", "train/b", "new", "old")])
def test_train_beside_folders_of_another_kind_is_ambiguous(tmp_path: Path, folders: tuple[str, ...]) -> None:
    refuse(
        fill(tmp_path, *folders),
        "train looks like a split",
        "--layout classes",
        f"pass the folder {tmp_path / 'train'} alone",
    )


@pytest.mark.parametrize(
    "names", [("trainA", "trainB", "testA", "testB"), ("train", "cars_test"), ("train_x", "test_y")]
)
def test_splits_of_several_sets_are_ambiguous(tmp_path: Path, names: tuple[str, ...]) -> None:
    refuse(fill(tmp_path, *names), "like a split" if len(names) == 2 and "train" in names else "splits of several sets")


@pytest.mark.parametrize("others", [(), ("TRAIN_mine",), ("a", "b")])
@pytest.mark.parametrize("mode", ["auto", "none"])
def test_splits_without_train_are_an_error(tmp_path: Path, others: tuple[str, ...], mode: LabelsMode) -> None:
    fill(tmp_path, "val", "test", *others)
    message = refuse(
        tmp_path, "holds folders for test and val (test, val), but none for train", "--layout flat", mode=mode
    )
    assert ("--layout classes" in message) == (mode == "auto")


def test_two_folders_for_one_split_are_an_error(tmp_path: Path) -> None:
    refuse(touch(tmp_path, "train/1.jpg", "val/2.jpg", "valid/3.jpg"), "two folders for the same split: val, valid")


# Too high, too deep


@pytest.mark.parametrize("parent", ["parts-v3", "a/b/c"])
@pytest.mark.parametrize("beside", ["README.md", "__MACOSX/parts-v3/train/._1.jpg", "parts.zip", "preview.jpg"])
@pytest.mark.parametrize(
    "inside", [("train/ok", "train/defect", "test/ok"), ("ok", "defect"), ("train", "valid"), ("train",)]
)
def test_one_folder_too_high_is_refused_with_the_folder_to_pass(
    tmp_path: Path, parent: str, beside: str, inside: tuple[str, ...]
) -> None:
    fill(tmp_path, *(f"{parent}/{name}" for name in inside), count=10)
    touch(tmp_path, beside)
    refuse(tmp_path, f"pass {tmp_path / parent} instead", "--layout flat")
    assert len(understand(tmp_path / parent).files) == 10 * len(inside)
    if "train" in inside[0]:
        refuse(tmp_path, f"pass {tmp_path / parent} instead", mode="none")
    assert understand(tmp_path, layout="flat").classes == []


def test_folders_that_hold_splits_are_refused(tmp_path: Path) -> None:
    for name in ("bottle", "cable"):
        fill(tmp_path, f"{name}/train/good", f"{name}/test/good", f"{name}/test/broken")
    for mode in ("auto", "none"):
        refuse(
            tmp_path,
            "holds bottle, cable, with folders for splits inside (test, train)",
            "test images would be trained on",
            f"{tmp_path / 'bottle'}",
            mode=mode,
        )
    assert understand(tmp_path, layout="classes").classes == ["bottle", "cable"]


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (("site_a", "site_b"), ("ok", "defect")),
        (("day", "night"), ("cat", "dog", "bird")),
        (("entrenamiento", "prueba"), ("cat", "dog")),
        (("2023", "2024"), ("jan", "feb")),
        (("camera1", "camera2", "camera3"), ("left", "right")),
    ],
)
def test_folders_of_the_same_sub_folders_are_ambiguous(
    tmp_path: Path, outer: tuple[str, ...], inner: tuple[str, ...]
) -> None:
    fill(tmp_path, *(f"{one}/{other}" for one in outer for other in inner))
    refuse(
        tmp_path, "hold the same folders", "--layout classes", "--layout subfolders", "--layout flat", "name them train"
    )
    assert understand(tmp_path, layout="classes").classes == sorted(outer)
    layout = understand(tmp_path, layout="subfolders")
    assert layout.classes == sorted(inner)
    assert layout.labels()[f"{outer[0]}/{inner[0]}/0.jpg"] == sorted(inner).index(inner[0])


def test_a_sub_folder_that_one_folder_lacks_does_not_hide_the_others(tmp_path: Path) -> None:
    fill(tmp_path, *(f"a/{name}" for name in ("x", "y", "z")), *(f"b/{name}" for name in ("x", "y")))
    refuse(tmp_path, "hold the same folders (x, y)")


@pytest.mark.parametrize("inner", ["images", "photos/2024", "img"])
def test_class_folders_may_hold_one_folder_each(tmp_path: Path, inner: str) -> None:
    layout = understand(fill(tmp_path, *(f"{name}/{inner}" for name in ("cat", "dog", "fox"))))
    assert layout.classes == ["cat", "dog", "fox"]


def test_class_folders_may_hold_different_folders(tmp_path: Path) -> None:
    fill(tmp_path, "cat/tabby", "cat/siamese", "dog/poodle", "dog/terrier", "dog/mixed", "cat/mixed")
    assert understand(tmp_path).classes == ["cat", "dog"]


# Images beside class folders


def test_few_images_beside_class_folders_are_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", count=10)
    layout = understand(touch(tmp_path, "logo.png", "cover.jpg"))
    assert layout.classes == ["cat", "dog"]
    assert layout.left_out == {"beside the class folders": ["cover.jpg", "logo.png"]}
    assert len(layout.files) == len(layout.labels()) == 20


def test_many_images_beside_class_folders_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "3.jpg")
    refuse(tmp_path, "1 images are beside them (3.jpg)", "--layout classes", "--layout flat")
    assert understand(tmp_path, layout="classes").left_out == {"beside the class folders": ["3.jpg"]}
    assert understand(tmp_path, layout="flat").files == ["3.jpg", "a/1.jpg", "b/2.jpg"]


def test_few_images_beside_the_class_folders_of_a_split_are_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "val/a", "val/b", count=10)
    layout = understand(touch(tmp_path, "train/montage.jpg"))
    assert layout.classes == ["a", "b"]
    assert layout.left_out == {"in train, but in none of its class folders": ["train/montage.jpg"]}
    assert "train/montage.jpg" not in layout.files
    assert sizes(layout) == {"train": 20, "val": 20}


@pytest.mark.parametrize("split", ["train", "test"])
def test_many_images_beside_the_class_folders_of_a_split_are_an_error(tmp_path: Path, split: str) -> None:
    fill(tmp_path, "train/a", "train/b", "test/a", split, count=4)
    refuse(tmp_path, f"of {split} are outside of any", "--data.splits.labels=none")


def test_unsorted_test_images_are_an_error(tmp_path: Path) -> None:
    refuse(
        touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/3.jpg"),
        "1 of the 1 image(s) of test are outside of any",
    )


def test_class_folders_in_val_but_not_in_train_are_an_error(tmp_path: Path) -> None:
    refuse(
        fill(tmp_path, "train", "val/a", "val/b"), "val of", "has class folders (a, b), but train has fewer than two"
    )


# Dates


@pytest.mark.parametrize(
    "names",
    [
        ("2026-05-01", "2026-05-02"),
        ("20260501", "20260502"),
        ("2025-12", "2026-01"),
        ("100CANON", "101CANON"),
        ("images_001", "images_002", "images_003"),
        ("Part 1", "Part 2"),
        ("batch-01", "batch-02"),
        ("HAM10000_images_part_1", "HAM10000_images_part_2"),
    ],
)
def test_folders_named_after_dates_or_numbered_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    layout = understand(fill(tmp_path, *names))
    assert layout.classes == []
    assert "named after dates, by a camera or as numbered parts" in layout.because
    assert understand(tmp_path, layout="classes").classes == sorted(names)
    assert understand(fill(tmp_path, "unlabelled")).classes == []


def test_folders_named_after_years_are_ambiguous(tmp_path: Path) -> None:
    refuse(fill(tmp_path, "2023", "2024"), "its folders are years", "--layout classes", "--layout flat")


@pytest.mark.parametrize(
    "names",
    [
        [str(number) for number in range(12)],
        ["00000", "00001"],
        ["class1", "class2"],
        ["images_001", "cat"],
        ["grade 1", "grade 2"],
    ],
)
def test_classes_may_be_numbered(tmp_path: Path, names: list[str]) -> None:
    assert understand(fill(tmp_path, *names)).classes == sorted(names)
