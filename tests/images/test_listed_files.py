"""The files that a list means by its paths."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_splitmask.errors import UserError
from lit_splitmask.images.listed_files import ListedFiles, check_listed, find_listed

Touch = Callable[..., Path]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """Makes empty files below a folder, which it returns."""

    def touch(*files: str) -> Path:
        for file in files:
            path = tmp_path / "root" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "root"

    return touch


def check(found: ListedFiles, root: Path, *files: str) -> None:
    check_listed(found, root / "list.csv", {file: number for number, file in enumerate(files, start=2)})


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("imgs/000", "imgs/000.jpg"),
        ("imgs/000.v2", "imgs/000.v2.png"),
        ("000.jpg", "imgs/000.jpg"),
        ("000", "train/a/000.JPG"),
        ("a/000.jpg", "train/a/000.jpg"),
        ("./imgs/000", "imgs/000.jpg"),
        ("IMGS/000.JPG", "imgs/000.jpg"),
        ("C:/Users/me/imgs/000.jpg", "imgs/000.jpg"),
        ("C:/Users/me/imgs/000", "data/imgs/000.jpg"),
        ("/home/me/000.jpg", "000.jpg"),
        ("//server/share/000.jpg", "000.jpg"),
        ("data/imgs/000.jpg", "imgs/000.jpg"),
        ("root/000.jpg", "000.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("caf\u00e9/1.jpg", "cafe\u0301/1.jpg"),
    ],
)
def test_a_path_that_differs_from_its_file_is_resolved(written: str, file: str, touch: Touch) -> None:
    root = touch(file, "other/1.png")
    found = find_listed(root, [written])
    assert found.names == {written: file}
    assert found.describe() == (
        f"1 of the listed paths do not exist as written and were found below {root}: {written} -> {file}."
    )
    check(found, root, written)


def test_paths_that_exist_are_left_as_they_are_and_no_folder_is_searched(
    touch: Touch, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = touch("a.png", "b/a.png")
    monkeypatch.setattr("lit_splitmask.images.listed_files.Tree.read", lambda _: pytest.fail("searched"))
    files = ["a.png", "./b/a.png", str(root / "b/a.png")]
    found = find_listed(root, files)
    assert found.names == {file: file for file in files}
    assert found.describe() is None


def test_a_folder_is_dropped_from_a_path_only_if_another_or_the_root_has_its_name(touch: Touch) -> None:
    root = touch("000.jpg", "001.jpg")
    found = find_listed(root, ["dogs/000.jpg", "dogs/001.jpg"])
    assert found.missing == ["dogs/000.jpg", "dogs/001.jpg"]


@pytest.mark.parametrize(
    ("files", "written", "message"),
    [
        (["train/0.jpg", "test/0.jpg"], ["0.jpg"], "0.jpg may be any of test/0.jpg, train/0.jpg: write its folder"),
        (["0.png"], ["0.jpg"], "There is 0.png, with another extension"),
        (
            ["0.jpg"],
            ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"],
            r"4 of the 5 images .* 1.jpg, 2.jpg, 3.jpg, … \(row 3\)",
        ),
        (["0/a.jpg"], ["0"], "names 0, which is a folder"),
        (["a.jpg"], ["a", "A.jpg"], "Rows 2 and 3 of .*, a and A.jpg, both mean .*root/a.jpg"),
    ],
)
def test_paths_without_a_single_file_are_refused(
    files: list[str], written: list[str], message: str, touch: Touch
) -> None:
    root = touch(*files)
    with pytest.raises(UserError, match=message):
        check(find_listed(root, written), root, *written)


def test_images_above_the_root_are_found_for_the_message(touch: Touch) -> None:
    root = touch("imgs/0.jpg", "lists/other.jpg")
    found = find_listed(root / "lists", ["imgs/0.jpg"])
    with pytest.raises(UserError, match=f"They are in {root}: pass --data.root {root}"):
        check_listed(found, root / "lists/list.csv", {"imgs/0.jpg": 2})


def test_paths_of_another_machine_are_told_apart_from_missing_images(touch: Touch) -> None:
    root = touch("imgs/0.jpg", "imgs/1.jpg")
    files = [f"/data/me/imgs/{number}.jpg" for number in range(3)]
    found = find_listed(root, files)
    assert found.missing == ["/data/me/imgs/2.jpg"]
