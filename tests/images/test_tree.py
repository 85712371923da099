import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.images import dicom
from lit_splitmask.images import tree as trees
from lit_splitmask.images.tree import Tree, list_images

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def kinds(tree: Tree) -> dict[str, list[str]]:
    """The files of each kind, by the first word of the kind."""
    return {kind.split()[0]: files for kind, files in tree.left_out.items()}


def test_images_are_found_at_any_depth_and_sorted(tmp_path: Path) -> None:
    files = ["b.jpg", "a/z.PNG", "a/deep/er/x.webp", "A/1.tiff", "a.b/2.JpEg", "c d/3.avif"]
    assert list_images(touch(tmp_path, *files)) == sorted(files)


def test_hidden_files_and_those_of_systems_are_ignored(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.jpg",
        ".b.jpg",
        "._a.jpg",
        ".hidden/c.jpg",
        "__MACOSX/d.jpg",
        "@eaDir/e.jpg",
        "Thumbs.db",
        "x/._y.png",
    )
    tree = Tree.read(tmp_path)
    assert tree.images == ["a.jpg"]
    assert tree.left_out == {}


@pytest.fixture
def without_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "has_pydicom", lambda: False)


@pytest.mark.usefixtures("without_pydicom")
def test_files_that_are_not_read_are_counted_by_kind(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "IMG_1.HEIC",
        "IMG_2.heif",
        "x/3.CR2",
        "4.dng",
        "5.dcm",
        "6.pdf",
        "7.svg",
        "8.psd",
        "9.mp4",
        "10.tar.gz",
    )
    touch(tmp_path, "11.npy", "12.nii.gz", "13.nii", "notes.md", "labels.json", "a.csv", "b.txt", "ok.jpg", "run.py")
    tree = Tree.read(tmp_path)
    assert kinds(tree) == {
        "HEIC": ["IMG_1.HEIC", "IMG_2.heif"],
        "camera": ["4.dng", "x/3.CR2"],
        "DICOM": ["5.dcm"],
        "PDF": ["6.pdf"],
        "vector": ["7.svg"],
        "images": ["8.psd"],
        "videos": ["9.mp4"],
        "archives": ["10.tar.gz"],
        "arrays": ["11.npy"],
        "medical": ["12.nii.gz", "13.nii"],
    }
    assert tree.label_files == ["a.csv", "b.txt", "labels.json"]
    lines = tree.describe_left_out()
    assert lines[0].startswith("2 HEIC (convert to JPEG")
    assert lines[0].endswith("such as IMG_1.HEIC, IMG_2.heif")
    assert tree.unread_images().keys() == {"IMG_1.HEIC", "IMG_2.heif", "x/3.CR2", "4.dng", "5.dcm", "8.psd"}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
@pytest.mark.parametrize("name", ["IMG_0014", "photo.jpg_large", "2024.05.01 at noon"])
def test_images_without_a_known_extension_are_counted(tmp_path: Path, file_format: str, name: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / name, file_format)
    tree = Tree.read(tmp_path)
    assert tree.left_out == {trees.NO_EXTENSION: [name]}
    assert tree.unread_images() == {name: trees.NO_EXTENSION}


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", trees.HEIC),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", trees.HEIC),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", trees.NO_EXTENSION),
        (bytes(128) + b"DICM", trees.DICOM),
    ],
)
@pytest.mark.usefixtures("without_pydicom")
def test_the_content_tells_the_kind_without_an_extension(tmp_path: Path, head: bytes, kind: str) -> None:
    (tmp_path / "IM0001").write_bytes(head)
    assert Tree.read(tmp_path).left_out == {kind: ["IM0001"]}


@pytest.mark.parametrize(
    "content", [b"", b"BMW and other cars", b"RIFF of a wave file", b"read me", bytes(500), b"GIF"]
)
def test_other_files_without_an_extension_do_not_count(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README").write_bytes(content)
    assert Tree.read(tmp_path).left_out == {}


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "far.jpg", "deep/near.jpg")
    root = touch(tmp_path / "root", "own.jpg")
    (root / "linked.jpg").symlink_to(outside / "far.jpg")
    (root / "folder").symlink_to(outside / "deep")
    (root / "circle").symlink_to(root)
    tree = Tree.read(root)
    assert tree.images == ["folder/near.jpg", "linked.jpg", "own.jpg"]
    assert tree.left_out == {trees.READ_ALREADY: ["circle"]}


def test_a_folder_that_is_linked_twice_is_read_once_and_named(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.jpg")
    (root / "val").symlink_to(root / "train")
    tree = Tree.read(root)
    assert tree.images == ["train/1.jpg"]
    assert tree.left_out == {trees.READ_ALREADY: ["val"]}


def test_the_first_of_two_names_of_a_folder_counts(tmp_path: Path) -> None:
    root = touch(tmp_path, "z/1.jpg", "m/2.jpg")
    (root / "a").symlink_to(root / "z")
    assert list_images(root) == ["a/1.jpg", "m/2.jpg"]


def test_pipes_and_sockets_are_not_opened(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "ok.jpg")
    os.mkfifo(root / "pipe.jpg")
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "pipe.json")
    (root / "linked.png").symlink_to(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket.png"))
        tree = Tree.read(root)
    assert tree.images == ["ok.jpg"]
    assert tree.left_out == {trees.NOT_A_FILE: ["linked.png", "pipe.jpg", "socket.png"]}
    assert tree.label_files == []


def test_broken_links_count_as_images_so_that_the_scan_names_them(tmp_path: Path) -> None:
    root = touch(tmp_path, "ok.jpg")
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    (root / "lost").symlink_to(root / "nowhere")
    tree = Tree.read(root)
    assert tree.images == ["circle.jpg", "gone.jpg", "ok.jpg"]
    assert tree.left_out == {}


def test_a_folder_without_the_right_to_read_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def forbid(path: str) -> Any:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)  # the tests may run as a user who may read everything
    with pytest.raises(UserError, match=rf"folder {tmp_path / 'b'} cannot be read \(Permission denied\)"):
        Tree.read(tmp_path)


def test_folders_that_cannot_be_used_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        list_images(touch(tmp_path, "image.jpg") / "image.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no images, at any depth\. Files"):
        list_images(tmp_path / "empty")
    with pytest.raises(UserError, match=r"holds no images, at any depth\. It holds 2 HEIC \(convert .*; 1 archives"):
        list_images(touch(tmp_path / "phone", "1.heic", "2.heic", "3.zip"))


def test_dicom_files_are_images_with_and_without_an_extension_but_not_their_catalogue(tmp_path: Path) -> None:
    for name in ("IM0001", "DICOMDIR", "series/IM.0002"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    tree = Tree.read(touch(tmp_path, "3.dcm", "4.DICOM"))
    assert tree.images == ["3.dcm", "4.DICOM", "IM0001", "series/IM.0002"]
    assert tree.left_out == {}


@pytest.mark.usefixtures("without_pydicom")
def test_a_folder_of_dicom_without_pydicom_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds no images.*2 DICOM \(pip install 'lit-splitmask\[medical\]' to read it\)"
    ):
        list_images(touch(tmp_path, "1.dcm", "2.dcm"))
