import os
from pathlib import Path
from typing import Any

import pytest

from lit_splitmask.errors import UserError
from lit_splitmask.images.layout import LabelsMode, list_images, understand


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_class_folders_are_found(tmp_path: Path) -> None:
    layout = understand(touch(tmp_path, "cat/b.jpg", "cat/deep/a.PNG", "ant/c.webp"))
    assert layout.classes == ["ant", "cat"]
    assert layout.labels() == {"ant/c.webp": 0, "cat/b.jpg": 1, "cat/deep/a.PNG": 1}
    assert layout.given == {}


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders_are_found(tmp_path: Path, val: str) -> None:
    layout = understand(touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{val}/b/3.jpg", "test/a/4.jpg", "x.jpg"))
    assert layout.classes == ["a", "b"]
    assert {name: len(files) for name, files in layout.given.items()} == {"train": 2, "val": 1, "test": 1}
    assert layout.labels()[f"{val}/b/3.jpg"] == 1
    assert "1 images outside" in layout.description


def test_split_folders_without_classes_have_no_labels(tmp_path: Path) -> None:
    layout = understand(touch(tmp_path, "train/1.jpg", "val/2.jpg", "annotations/notes.json"))
    assert layout.classes == []
    assert set(layout.given) == {"train", "val"}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert understand(touch(tmp_path, "train/1.jpg", "bus/2.jpg", "car/3.jpg")).classes == ["bus", "car", "train"]


@pytest.mark.parametrize("files", [("1.jpg", "2.jpg"), ("one/1.jpg", "one/2.jpg"), ("a/1.jpg", "b/2.jpg", "3.jpg")])
def test_anything_else_has_no_labels(tmp_path: Path, files: tuple[str, ...]) -> None:
    layout = understand(touch(tmp_path, *files))
    assert layout.classes == []
    assert set(layout.labels().values()) == {-1}
    assert layout.files == sorted(files)


def test_labels_can_be_ignored(tmp_path: Path) -> None:
    assert understand(touch(tmp_path, "a/1.jpg", "b/2.jpg"), "none").classes == []


@pytest.mark.parametrize("files", [("1.jpg",), ("one/1.jpg",), ("a/1.jpg", "b/2.jpg", "3.jpg"), ("train/1.jpg",)])
def test_missing_class_folders_are_an_error_where_they_are_insisted_on(tmp_path: Path, files: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="at least two class folders"):
        understand(touch(tmp_path, *files), "folders")


def test_hidden_files_and_other_kinds_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".b.jpg", ".hidden/c.jpg", "__MACOSX/d.jpg", "notes.txt", "Thumbs.db")
    assert list_images(tmp_path) == ["a.jpg"]


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "far.jpg", "deep/near.jpg")
    root = touch(tmp_path / "root", "own.jpg")
    (root / "linked.jpg").symlink_to(outside / "far.jpg")
    (root / "folder").symlink_to(outside / "deep")
    (root / "circle").symlink_to(root)
    assert list_images(root) == ["folder/near.jpg", "linked.jpg", "own.jpg"]


@pytest.mark.parametrize("mode", ["auto", "folders"])
def test_classes_that_train_lacks_are_named(tmp_path: Path, mode: LabelsMode) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/Zebra/3.jpg")
    with pytest.raises(UserError, match=r"val of .* has classes that train lacks: Zebra"):
        understand(tmp_path, mode)


def test_unsorted_test_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 image\\(s\\) of test lie outside"):
        understand(touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/3.jpg"))


def test_two_folders_for_one_split_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two folders for the same split"):
        understand(touch(tmp_path, "train/1.jpg", "val/2.jpg", "valid/3.jpg"))


def test_a_folder_without_the_right_to_read_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def forbid(path: str) -> Any:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)  # the tests may run as a user who may read everything
    with pytest.raises(UserError, match=rf"folder {tmp_path / 'b'} cannot be read \(Permission denied\)"):
        understand(tmp_path)


def test_folders_that_cannot_be_used_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        understand(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        understand(touch(tmp_path, "image.jpg") / "image.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        understand(tmp_path / "empty")
