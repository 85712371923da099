"""Files of a segmentation set that are damaged, turned, repeated or missing: found before training, and named."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scenes import draw_scene, save, scene_data, write_pair, write_scenes

from lit_splitmask.datamodules import SegmentationFolder
from lit_splitmask.errors import UserError


def opened(root: Path, **settings: Any) -> SegmentationFolder:
    data = scene_data(root, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def sizes(data: SegmentationFolder) -> dict[str, int]:
    return {name: len(split) for name, split in data.source.splits.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", {"train": 6, "val": 3, "test": 2})


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turned(path: Path, orientation: int) -> None:
    """Gives a file an EXIF orientation, which leaves its pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif)


@pytest.mark.parametrize("what", ["images", "annotations"])
@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"no")])
def test_damaged_images_and_maps_are_left_out_with_their_partners(
    what: str, damage: Any, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(root / what / "train/02.png")
    damage(root / what / "val/07.png")
    (root / what / "train/._00.png").write_bytes(b"macOS")
    data = opened(root)
    assert sizes(data) == {"train": 5, "val": 2, "test": 2}
    for number in ("train/02", "val/07"):
        assert caplog.text.count(f"{what}/{number}.png cannot be decoded") == 1
        assert ("which belongs to it, is left out too" in caplog.text) == (what == "annotations")
    assert all(len(batch["image"]) for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader)


def test_a_folder_of_damaged_files_is_refused(root: Path) -> None:
    for path in (root / "images").rglob("*.png"):
        truncate(path)
    with pytest.raises(
        UserError, match=r"11 of the 11 images .*cannot be read\. The image .*09\.png cannot be decoded"
    ):
        opened(root)


def test_a_val_of_damaged_files_is_cut_from_train(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (root / "images/val").iterdir():
        truncate(path)
    with caplog.at_level(logging.INFO):
        data = opened(root)
    assert sizes(data) == {"train": 5, "val": 1, "test": 2}
    assert "has no val: 1 of 6 training images are held out" in caplog.text


def test_it_is_said_when_no_val_can_be_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_scenes(tmp_path / "scenes", {"train": 2})
    assert sizes(opened(root)) == {"train": 2}
    assert "has no val, and none is cut: the weights of the last step are used" in caplog.text


def test_an_image_of_two_splits_stays_in_one(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("images", "annotations"):
        pixels = np.asarray(Image.open(root / kind / "val" / "06.png"))
        save(root / kind / "train" / "copy.bmp" if kind == "images" else root / kind / "train" / "copy.png", pixels)
        (root / kind / "test" / "07.png").write_bytes((root / kind / "val" / "07.png").read_bytes())
    assert sizes(opened(root)) == {"train": 6, "val": 2, "test": 3}
    assert "images/train/copy.bmp (train) is identical to images/val/06.png (val) and is left out." in caplog.text
    assert "images/val/07.png (val) is identical to images/test/07.png (test) and is left out." in caplog.text


def test_splits_of_the_same_images_are_refused(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", {"train": 3})
    for kind in ("images", "annotations"):
        for path in (root / kind / "train").iterdir():
            (root / kind / "val").mkdir(exist_ok=True)
            (root / kind / "val" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"All 3 training images in .* are in val or test too"):
        opened(root)


def test_a_map_of_another_size_is_refused(root: Path) -> None:
    for number in (0, 1):
        save(root / f"annotations/train/{number:02d}.png", np.zeros((40, 55), dtype=np.uint8))
    with pytest.raises(UserError, match=r"00\.png is 55 x 40 px, but its image is 56 x 40 px: .*\(2 of 11 maps differ"):
        opened(root)


def test_a_map_that_fits_before_the_exif_turn_is_refused(root: Path) -> None:
    turned(root / "images/train/00.png", 6)
    with pytest.raises(UserError, match=r"is 56 x 40 px, but its image is 40 x 56 px: it fits .* EXIF .*exiftool"):
        opened(root)
    label_map = Image.open(root / "annotations/train/00.png").transpose(Image.Transpose.ROTATE_270)
    label_map.save(root / "annotations/train/00.png")
    data = opened(root)
    image, classes = draw_scene(0)
    images = data.split_images("train")
    assert images is not None
    assert (images[0]["image"].permute(1, 2, 0).numpy() == np.rot90(image, -1)).all()
    assert (images[0]["map"].numpy() == np.rot90(np.where(classes == 255, -1, classes.astype(int)), -1)).all()


def test_a_map_with_swapped_sides_is_refused(root: Path) -> None:
    save(root / "annotations/train/00.png", draw_scene(0)[1].T.copy())
    with pytest.raises(UserError, match="its sides are swapped"):
        opened(root)


@pytest.mark.parametrize(("size", "orientation"), [((40, 40), 6), ((40, 56), 3)])
def test_turns_that_no_size_confirms_are_named(
    size: tuple[int, int], orientation: int, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image, label_map = (root / kind / "train/phone.png" for kind in ("images", "annotations"))
    write_pair(image, label_map, 30, size=size)
    turned(image, orientation)
    opened(root)
    assert "1 images have an EXIF rotation, such as images/train/phone.png, and their sizes do not tell" in caplog.text
    caplog.clear()
    other = (root / kind / "train/other.png" for kind in ("images", "annotations"))
    write_pair(*other, 31)
    turned(root / "images/train/other.png", 6)
    Image.open(root / "annotations/train/other.png").transpose(Image.Transpose.ROTATE_270).save(
        root / "annotations/train/other.png"
    )
    opened(root)
    assert "EXIF" not in caplog.text  # the turned map shows that maps were drawn on upright images


def test_files_of_other_kinds_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "images/train/phone.HEIC").write_bytes(b"")
    opened(root)
    assert "Not read: 1 HEIC" in caplog.text


def test_a_folder_that_changed_since_it_was_read_is_refused(root: Path) -> None:
    data = scene_data(root)
    data.prepare_data()
    write_pair(root / "images/train/new.png", root / "annotations/train/new.png", 40)
    with pytest.raises(UserError, match="have changed since they were read"):
        data.setup("fit")
    data.prepare_data()
    data.setup("fit")
    assert sizes(data)["train"] == 7


@pytest.mark.parametrize(("what", "kind"), [("images", "image"), ("annotations", "label map")])
def test_an_image_or_map_that_becomes_another_one_after_the_scan_is_named(what: str, kind: str, root: Path) -> None:
    data = opened(root)
    victim = root / what / "train/02.png"
    victim.write_bytes((root / what / "train/03.png").read_bytes())
    with pytest.raises(UserError, match=f"^The {kind} {victim} was replaced after the folder was scanned"):
        list(data.train_dataloader())


def test_images_and_maps_that_are_written_again_with_the_same_pixels_change_nothing(root: Path) -> None:
    data = opened(root)
    for path in root.rglob("*.png"):
        picture = Image.open(path)
        picture.load()
        picture.save(path, compress_level=1)
    assert list(data.val_dataloader())


def test_a_map_that_gets_another_palette_after_the_scan_is_named(root: Path) -> None:
    for path in (root / "annotations").rglob("*.png"):
        _give_palette(path, [0, 0, 0, 250, 0, 0, 0, 250, 0])
    data = opened(root)
    victim = root / "annotations/train/02.png"
    _give_palette(victim, [0, 0, 0, 0, 250, 0, 250, 0, 0])
    with pytest.raises(UserError, match=f"^The label map {victim} was replaced"):
        list(data.train_dataloader())


def _give_palette(path: Path, colours: list[int]) -> None:
    indices = Image.fromarray(np.asarray(Image.open(path)))
    indices.putpalette(colours)
    indices.save(path)
