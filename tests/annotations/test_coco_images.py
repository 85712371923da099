"""Where the images are that annotation files name."""

from pathlib import Path

import pytest

from lit_splitmask.annotations.coco_images import NamedFile, locate_images, parts_of, resolve_images
from lit_splitmask.errors import UserError
from lit_splitmask.images.tree import Tree


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def resolve(root: Path, names: list[str], *, split: str = "train", path: str = "annotations/a.json") -> list[str]:
    return resolve_images(root, {split: NamedFile(root / path, names)}, Tree.read(root))[split]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("train/a.jpg", "a.jpg"),
        ("train/a.jpg", "train/a.jpg"),
        ("train/a.jpg", "./a.jpg"),
        ("train/a.jpg", "..\\train\\a.jpg"),
        ("train/a.jpg", "/home/other/data/train/a.jpg"),
        ("train/a.jpg", "C:\\data\\train\\a.jpg"),
        ("train/a.jpg", "https://host/bucket/a.jpg"),
        ("train2017/a.jpg", "a.jpg"),
        ("images/train/a.jpg", "a.jpg"),
        ("train/images/a.jpg", "images\\a.jpg"),
        ("train/images/a.jpg", "a.jpg"),
        ("train/north/a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("images/default/a.jpg", "a.jpg"),
        ("images/default/north/a.jpg", "north/a.jpg"),
        ("a.jpg", "a.jpg"),
        ("a.jpg", "images/a.jpg"),
        ("photos from May/a.jpg", "a.jpg"),
        ("val2014/a.jpg", "val2014/a.jpg"),  # named by its folder, it is no mistake
        ("train/cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("train/a", "a"),
        ("train/a.heic", "a.heic"),
    ],
)
def test_an_image_is_found(tmp_path: Path, file: str, name: str) -> None:
    touch(tmp_path, file, "val/b.jpg", "test/c.jpg")
    assert resolve(tmp_path, [name]) == [file]


def test_names_may_be_absolute_in_the_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "set/train/a.jpg", "set/train/old/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert resolve(Path("set"), [f"{tmp_path}/set/train/old/a.jpg"]) == ["train/old/a.jpg"]


def test_the_likeliest_folder_wins(tmp_path: Path) -> None:
    for file in ("other/a.jpg", "images/a.jpg", "train/thumbnails/a.jpg", "train/a.jpg", "annotations/a.jpg"):
        touch(tmp_path, file, "val/a.jpg")
        assert resolve(tmp_path, ["a.jpg"]) == [file]


def test_a_folder_of_no_split_is_not_looked_into_if_the_split_has_its_own(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "train/b.jpg", "new photos/c.jpg", "images/d.jpg")
    assert resolve(tmp_path, ["a.jpg", "d.jpg"]) == ["train/a.jpg", "images/d.jpg"]
    with pytest.raises(UserError, match=r"1 of the 2 images .* missing: c\.jpg\. .* new photos/c\.jpg has the name"):
        resolve(tmp_path, ["a.jpg", "c.jpg"])


def test_an_image_of_another_split_is_never_taken_for_a_missing_one(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "train/b.jpg", "val/a.jpg", "val/c.jpg")
    with pytest.raises(
        UserError, match=r"1 of the 3 .* missing: c\.jpg\. They were looked for in train, \. of .*val/c\.jpg"
    ):
        resolve(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])


def test_splits_may_share_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "train/b.jpg")
    named = {
        "train": NamedFile(tmp_path / "train.json", ["a.jpg"]),
        "val": NamedFile(tmp_path / "val.json", ["b.jpg"]),
    }
    assert resolve_images(tmp_path, named, Tree.read(tmp_path)) == {"train": ["train/a.jpg"], "val": ["train/b.jpg"]}


def test_a_split_without_a_folder_does_not_get_the_images_of_another(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "train/b.jpg")
    named = {
        "train": NamedFile(tmp_path / "train.json", ["a.jpg"]),
        "test": NamedFile(tmp_path / "test.json", ["a.jpg"]),  # the images of test have not been copied
    }
    with pytest.raises(UserError, match=r"1 of the 1 images that .*test\.json names are missing: a\.jpg"):
        resolve_images(tmp_path, named, Tree.read(tmp_path))
    assert locate_images(named, Tree.read(tmp_path)) == {"train": ["train/a.jpg"], "test": [None]}


def test_a_name_that_lost_its_folders_does_not_get_an_image_of_another_name(tmp_path: Path) -> None:
    touch(tmp_path, "train/batch1/a.jpg", "train/batch1/b.jpg")
    with pytest.raises(UserError, match=r"1 of the 3 .* missing: batch2/a\.jpg"):
        resolve(tmp_path, ["batch1/a.jpg", "batch1/b.jpg", "batch2/a.jpg"])
    with pytest.raises(UserError, match=r"2 of the 2 .* missing: batch2/a\.jpg, batch3/a\.jpg"):
        resolve(tmp_path, ["batch2/a.jpg", "batch3/a.jpg"])
    assert resolve(tmp_path, ["batch2/a.jpg"]) == ["train/batch1/a.jpg"]


def test_a_name_that_fits_several_images_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "north/a.jpg", "south/a.jpg")
    with pytest.raises(UserError, match=r"The name a\.jpg in .* fits several images: north/a\.jpg, south/a\.jpg"):
        resolve(tmp_path, ["a.jpg"])
    assert resolve(tmp_path, ["south/a.jpg"]) == ["south/a.jpg"]
    assert resolve(tmp_path, ["a.jpg"], path="south/labels.json") == ["south/a.jpg"]


def test_two_names_of_one_image_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg")
    with pytest.raises(UserError, match=r"names the image train/a\.jpg twice"):
        resolve(tmp_path, ["a.jpg", "train/a.jpg"])


def test_missing_images_are_named_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "train/e.jpg", "annotations/a.json")
    with pytest.raises(
        UserError, match=r"4 of the 5 images that .*a\.json names are missing: a\.jpg, b\.jpg, c\.jpg, …\."
    ):
        resolve(tmp_path, [f"{name}.jpg" for name in "abcde"])


def test_a_hidden_file_of_macos_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "train/._a.jpg")
    with pytest.raises(UserError, match="missing"):
        resolve(tmp_path, ["._a.jpg"])


def test_many_images_in_many_folders_are_found_quickly(tmp_path: Path) -> None:
    tree = Tree(tmp_path, images=[f"train/{number % 1000:03d}/{number}.jpg" for number in range(20_000)])
    named = {"train": NamedFile(tmp_path / "a.json", [f"{number}.jpg" for number in range(20_000)])}
    assert len(resolve_images(tmp_path, named, tree)["train"]) == 20_000


def test_the_parts_of_a_name_are_those_of_any_system() -> None:
    assert parts_of("C:\\a\\.\\b.jpg") == ("a", "b.jpg")
    assert parts_of("/../a//b.jpg") == ("a", "b.jpg")
