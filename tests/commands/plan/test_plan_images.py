"""What ``lit-splitmask plan`` finds in a folder: odd files, duplicates, classes with one image or none."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_images import write_dicom
from PIL import Image

from lit_splitmask.commands.plan.images import ImageFindings, OddFiles, find
from lit_splitmask.datamodules import Manifest
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.index import SplitOptions

MakeFolder = Callable[..., Path]


def findings(root: Path, **options: Any) -> ImageFindings:
    return find(load_or_make(root, root.parent / "index", SplitOptions(**options)))


def noise(seed: int, *shape: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(shape or (48, 40)))


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """One file of each odd kind, two plain ones, and two that cannot be decoded."""
    root = tmp_path / "odd"
    root.mkdir()
    pictures = [Image.fromarray(noise(seed)) for seed in range(12)]
    pictures[0].save(root / "plain.jpg")
    pictures[1].save(root / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures[2].save(root / "turned.jpg", exif=exif)
    pictures[3].convert("L").save(root / "grey.jpg")
    pictures[4].putalpha(90)
    pictures[4].save(root / "clear.png")
    pictures[5].quantize(16).save(root / "palette.png")
    pictures[6].convert("CMYK").save(root / "ink.jpg")
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)).save(root / "deep.png")
    write_dicom(root / "IM0001", np.arange(2400, dtype=np.uint16).reshape(60, 40))  # such files need no extension
    pictures[7].save(root / "moving.webp", save_all=True, append_images=[pictures[8]], lossless=True)
    pictures[9].save(root / "named.png", format="JPEG")
    (root / "damaged.jpg").write_bytes((root / "plain.jpg").read_bytes()[:200])
    (root / "text.png").write_text("no image")
    return root


def test_odd_files_are_found_by_their_content(odd_folder: Path) -> None:
    found = findings(odd_folder, max_bad_share=0.5)
    assert found.odd == {
        "16-bit": OddFiles(2, ["IM0001", "deep.png"]),
        "CMYK": OddFiles(1, ["ink.jpg"]),
        "EXIF-rotated": OddFiles(1, ["turned.jpg"]),
        "animated": OddFiles(1, ["moving.webp"]),
        "extension of another format": OddFiles(1, ["named.png"]),
        "greyscale": OddFiles(1, ["grey.jpg"]),
        "palette": OddFiles(1, ["palette.png"]),
        "transparent (RGBA)": OddFiles(1, ["clear.png"]),
    }
    assert found.formats == {"JPEG": 5, "PNG": 4, "WEBP": 1, "DICOM": 1}


def test_undecodable_files_are_named_with_the_reason(odd_folder: Path) -> None:
    found = findings(odd_folder, max_bad_share=0.5)
    assert found.undecodable.keys() == {"damaged.jpg", "text.png"}
    assert "truncated" in found.undecodable["damaged.jpg"].lower()
    assert "not an image of a known format" in found.undecodable["text.png"]


def test_16_bit_colour_is_found_although_pillow_reads_8_bits(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep" / "a.png"), noise(0).astype(np.uint16) * 257)
    assert Image.open(tmp_path / "deep" / "a.png").mode == "RGB"
    assert findings(tmp_path / "deep", val_share=0.0).odd == {"16-bit": OddFiles(1, ["a.png"])}


def test_sizes_are_those_of_upright_images(tmp_path: Path) -> None:
    root = tmp_path / "sizes"
    root.mkdir()
    for seed, (width, height) in enumerate([(30, 20), (31, 50), (90, 40)]):
        Image.fromarray(noise(seed, width, height)).save(root / f"{seed}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(9, 300, 10)).save(root / "turned.jpg", exif=exif)
    found = findings(root)
    assert (found.height.smallest, found.height.median, found.height.largest) == (20, 45, 300)
    assert (found.width.smallest, found.width.median, found.width.largest) == (10, 30, 90)


def test_identical_images_across_splits_and_labels_are_found(split_folder: MakeFolder) -> None:
    root = split_folder()
    first = sorted((root / "train" / "disc").iterdir())[0]
    shutil.copy(first, root / "test" / "square" / "copy.png")
    second = sorted((root / "train" / "stripes").iterdir())[0]
    Image.open(second).save(root / "train" / "stripes" / "copy.bmp")  # another file, the same pixels
    groups = findings(root).identical
    assert [(group.splits, group.labels, group.across_splits, group.labels_differ) for group in groups] == [
        (["test", "train"], ["square", "disc"], True, True),
        (["train", "train"], ["stripes", "stripes"], False, False),
    ]
    assert groups[0].files == ["test/square/copy.png", f"train/disc/{first.name}"]
    assert [line.split(" ")[0] for line in findings(root).taken_out] == [f"train/disc/{first.name}"]


def test_near_duplicates_are_found_with_one_of_each_identical_group(tmp_path: Path) -> None:
    root = tmp_path / "near"
    for split, label in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
        (root / split / label).mkdir(parents=True)
        for number in range(3):
            name = f"{split}{label}{number}"
            Image.fromarray(noise(sum(name.encode()) * 7 + number, 96, 80)).save(root / split / label / f"{name}.png")
    original = Image.open(root / "train" / "a" / "traina0.png")
    original.save(root / "train" / "a" / "same.bmp")
    original.save(root / "val" / "b" / "compressed.jpg", quality=70)
    found = findings(root)
    assert [group.files for group in found.near] == [["train/a/same.bmp", "val/b/compressed.jpg"]]
    assert found.near[0].across_splits
    assert found.near[0].labels_differ
    assert [group.files for group in found.identical] == [["train/a/same.bmp", "train/a/traina0.png"]]


def test_classes_of_one_image_and_empty_ones_are_found(class_folder: MakeFolder) -> None:
    root = class_folder(per_class=4)
    for name in ("alone", "twins", "void", "unreadable", ".hidden"):
        (root / name).mkdir()
    Image.fromarray(noise(0)).save(root / "alone" / "a.png")
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(1)).save(root / "twins" / name)
    (root / "unreadable" / "a.jpg").write_text("no image")
    found = findings(root, max_bad_share=0.5)
    assert found.one_image_classes == ["alone", "twins"]
    assert found.empty_classes == ["unreadable", "void"]


def test_an_empty_class_of_one_split_is_found(split_folder: MakeFolder) -> None:
    root = split_folder()
    for file in (root / "val" / "disc").iterdir():
        file.unlink()
    found = findings(root)
    assert found.empty_classes == ["val/disc"]
    assert found.counts["val"]["disc"] == 0


def test_listed_images_without_a_label_are_counted_as_such(tmp_path: Path) -> None:
    cells = ["a", "b", "", "a", ""]
    for number in range(5):
        Image.fromarray(noise(number % 4)).save(tmp_path / f"{number}.png")  # the first and the last are the same
    rows = [f"{number}.png,{cell},{'test' if number == 3 else 'train'}" for number, cell in enumerate(cells)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    found = find(Manifest(str(tmp_path / "list.csv"), index_dir=str(tmp_path / "index")).load_or_make())
    assert {split: counts["(no label)"] for split, counts in found.counts.items()} == {"train": 2, "test": 0}
    assert [group.labels_differ for group in found.identical] == [False]
    assert found.one_image_classes == ["b"]
