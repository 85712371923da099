"""Which image belongs to which label map: layouts that are read, and folders that are not taken for pairs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import save, write_pairs

from lit_splitmask.annotations.pair_names import match
from lit_splitmask.annotations.pairs import find_pairs, folders_of_images, images_to_predict, looks_like_segmentation
from lit_splitmask.errors import UserError


def counts(root: Path) -> dict[str, int]:
    return {split: len(files) for split, files in find_pairs(root).splits.items()}


def write_photos(folder: Path, count: int = 4, start: int = 0) -> None:
    for number in range(start, start + count):
        noise = np.random.default_rng([7, number, len(folder.name)]).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        save(folder / f"{number:02d}.png", noise)


ONE_SPLIT = [
    ("images/{}.png", "masks/{}.png"),
    ("images/{}.jpg", "annotations/{}.png"),
    ("Images/{}.jpg", "Labels/{}.png"),
    ("img/{}.png", "ann/{}.png"),
    ("{}.jpg", "masks/{}.png"),
    ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
    ("download/images/{}.jpg", "download/masks/{}.png"),
    ("images/{}.jpg", "masks/{}_mask.png"),
    ("images/img_{}.png", "masks/mask_{}.png"),
    ("images/image{}.png", "masks/label{}.png"),
    ("701_StillsRaw_full/{}.png", "LabeledApproved_full/{}_L.png"),
    ("Original/{}.tif", "Ground Truth/{}.tif"),
    ("crack_images/{}.png", "crack_masks/{}.png"),
    ("x/{}.png", "y/{}.png"),
    ("field/{}_sat.jpg", "field/{}_mask.png"),
    ("all/{}.jpg", "all/{}.png"),
    ("images/{}.jpg", "masks/{}.jpg.png"),
    ("train/{}_jpg.rf.1a2b.jpg", "train/{}_jpg.rf.1a2b_mask.png"),
]


@pytest.mark.parametrize(("images", "maps"), ONE_SPLIT)
def test_images_and_maps_are_found_by_folders_names_and_content(images: str, maps: str, tmp_path: Path) -> None:
    write_pairs(tmp_path, images, maps)
    pairs = find_pairs(tmp_path)
    assert looks_like_segmentation(tmp_path)
    names = [f"{number:02d}" for number in range(4)]
    assert pairs.splits == {"train": [images.format(name) for name in names]}
    assert pairs.maps == {images.format(name): maps.format(name) for name in names}
    assert images_to_predict(tmp_path) == pairs.splits["train"]


SPLITS = [
    ("{split}/images/{{}}.png", "{split}/masks/{{}}.png"),
    ("images/{split}/{{}}.png", "labels/{split}/{{}}.png"),
    ("img_dir/{split}/{{}}.png", "ann_dir/{split}/{{}}.png"),
    ("{split}/{{}}.png", "{split}_labels/{{}}_L.png"),
    ("{split}/{{}}.png", "{split}annot/{{}}.png"),
    ("images_{split}/{{}}.png", "masks_{split}/{{}}.png"),
    ("{split}/original/{{}}.png", "{split}/ground_truth/{{}}.png"),
    ("{split}/a/{{}}.png", "{split}/b/{{}}.png"),
    ("{split}/{{}}.jpg", "{split}/{{}}_mask.png"),
    ("set_{split}_input/{{}}.png", "set_{split}_groundtruth/{{}}_segmentation.png"),
    ("leftImg8bit/{split}/aachen/{{}}_leftImg8bit.png", "gtFine/{split}/aachen/{{}}_gtFine_labelIds.png"),
]


@pytest.mark.parametrize("spelling", [("train", "val", "test"), ("Training", "Validation", "Testing")])
@pytest.mark.parametrize(("images", "maps"), SPLITS)
def test_splits_are_found_in_any_layout_and_spelling(
    images: str, maps: str, spelling: tuple[str, ...], tmp_path: Path
) -> None:
    for index, split in enumerate(spelling):
        write_pairs(tmp_path, images.format(split=split), maps.format(split=split), start=10 * index)
    assert looks_like_segmentation(tmp_path)
    pairs = find_pairs(tmp_path)
    assert {split: len(files) for split, files in pairs.splits.items()} == {"train": 4, "val": 4, "test": 4}
    assert len(pairs.maps) == 12
    assert len(images_to_predict(tmp_path)) == 12


def test_test_images_beside_plain_folders_are_unlabelled(tmp_path: Path) -> None:
    write_pairs(tmp_path, "images/{}.png", "masks/{}.png")
    write_photos(tmp_path / "test/images")
    write_photos(tmp_path / "unlabelled")
    assert counts(tmp_path) == {"train": 4, "unlabelled": 8}


def test_nnunets_folders_are_read(tmp_path: Path) -> None:
    write_pairs(tmp_path, "imagesTr/case_{}_0000.png", "labelsTr/case_{}.png")
    write_photos(tmp_path / "imagesTs")
    assert counts(tmp_path) == {"train": 4, "unlabelled": 4}


def test_extra_folders_are_named_and_left_out(tmp_path: Path) -> None:
    write_pairs(tmp_path, "JPEGImages/{}.jpg", "SegmentationClass/{}.png")
    write_pairs(tmp_path, "depth/{}.png", "SegmentationObject/{}.png")
    pairs = find_pairs(tmp_path)
    assert pairs.splits["train"] == [f"JPEGImages/{number:02d}.jpg" for number in range(4)]
    assert {what: len(files) for what, files in pairs.left_out.items()} == {
        "images in depth, which has no label maps": 4,
        "maps of instances and pictures of maps": 4,
    }
    assert len(images_to_predict(tmp_path)) == 8  # all but maps


def test_extra_folders_in_splits_are_left_out_but_not_a_part_of_the_images(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a", "train/images/{}.jpg", "train/masks/{}.png")
    write_photos(tmp_path / "a/train/depth")
    assert counts(tmp_path / "a") == {"train": 4}
    assert list(find_pairs(tmp_path / "a").left_out) == ["images in train/depth, which has no label maps"]
    write_pairs(tmp_path / "b", "images/train/aachen/{}.jpg", "labels/train/aachen/{}.png")
    write_photos(tmp_path / "b/images/train/bochum")
    with pytest.raises(UserError, match="train/bochum has no label maps"):
        find_pairs(tmp_path / "b")


def test_maps_without_an_image_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path, "images/{}.jpg", "masks/{}.png")
    (tmp_path / "images/03.jpg").unlink()
    assert find_pairs(tmp_path).left_out == {"label maps in masks that belong to no image": ["masks/03.png"]}


def test_a_folder_without_a_split_is_not_added_to_train(tmp_path: Path) -> None:
    write_pairs(tmp_path, "train/images/{}.png", "train/masks/{}.png")
    write_pairs(tmp_path, "extra/images/{}.png", "extra/masks/{}.png", start=10)
    pairs = find_pairs(tmp_path)
    assert counts(tmp_path) == {"train": 4}
    assert list(pairs.left_out) == ["images in extra/images, which is neither train nor val nor test"]


def test_test_images_without_maps_are_unlabelled(tmp_path: Path) -> None:
    write_pairs(tmp_path, "train/images/{}.png", "train/masks/{}.png")
    write_photos(tmp_path / "test/images")
    assert counts(tmp_path) == {"train": 4, "unlabelled": 4}
    write_photos(tmp_path / "val/images", start=10)
    with pytest.raises(UserError, match="val/images has no label maps"):
        find_pairs(tmp_path)


def test_names_agree_in_any_unicode_form(tmp_path: Path) -> None:
    assert match(["images/cafe\u0301.jpg"], ["masks/caf\u00e9.png"]) == {"images/cafe\u0301.jpg": "masks/caf\u00e9.png"}


def test_maps_that_keep_the_extension_of_their_image_are_told_apart() -> None:
    maps = ["masks/a.jpg.png", "masks/a.png.png"]
    assert match(["a.jpg", "a.png"], maps) == {"a.jpg": maps[0], "a.png": maps[1]}


def test_png_maps_come_before_other_formats() -> None:
    assert match(["a.jpg"], ["masks/a.bmp", "masks/a.png"]) == {"a.jpg": "masks/a.png"}


def test_class_folders_are_not_taken_for_maps(tmp_path: Path) -> None:
    for names in (("cats", "dogs", "labels"), ("cats", "masks"), ("with_mask", "without_mask"), ("mask", "no_mask"),
                  ("images", "labels", "text"), ("a", "b")):  # fmt: skip
        for split in ("", "train"):
            root = tmp_path / "-".join(names) / (split or "plain")
            for name in names:
                write_photos(root / split / name)
            assert not looks_like_segmentation(root), names
            assert len(images_to_predict(root)) == 4 * len(names), names


def test_a_yolo_folder_has_no_maps(tmp_path: Path) -> None:
    write_photos(tmp_path / "images/train")
    (tmp_path / "labels/train").mkdir(parents=True)
    for number in range(4):
        (tmp_path / f"labels/train/{number:02d}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert not looks_like_segmentation(tmp_path)


def test_maps_of_other_names_are_recognised_and_refused(tmp_path: Path) -> None:
    for number in range(4):
        write_pairs(tmp_path, f"photos of today/frame{number}x.png", f"masks/{number}.png", count=1, start=number)
    assert looks_like_segmentation(tmp_path)
    with pytest.raises(UserError, match=r"has label maps \(masks\) beside photos of today, but no images of the same"):
        find_pairs(tmp_path)


def test_images_that_lack_maps_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path, "train/images/{}.png", "train/masks/{}.png", count=8)
    for number in range(1, 7):
        (tmp_path / f"train/masks/{number:02d}.png").unlink()
    assert looks_like_segmentation(tmp_path)
    with pytest.raises(UserError, match=r"6 of the 8 images in .*have no label map .*such as train/images/01\.png"):
        find_pairs(tmp_path)
    assert len(images_to_predict(tmp_path)) == 8


def test_two_folders_of_maps_or_of_one_split_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a", "images/{}.png", "masks/{}.png")
    write_pairs(tmp_path / "a", "images/{}.png", "labels/{}.png")
    with pytest.raises(UserError, match="several folders of label maps of the same images: labels, masks"):
        find_pairs(tmp_path / "a")
    write_pairs(tmp_path / "b", "images/Val/{}.png", "masks/Val/{}.png")
    write_pairs(tmp_path / "b", "images/val/{}.png", "masks/val/{}.png")
    with pytest.raises(UserError, match="several folders of images for one split: images/Val, images/val"):
        find_pairs(tmp_path / "b")


def test_two_images_with_one_map_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, "images/{}.png", "masks/{}.png")
    Image.open(tmp_path / "images/00.png").save(tmp_path / "images/00.jpg")
    with pytest.raises(UserError, match=r"images/00\.jpg and images/00\.png .*have the same label map, masks/00\.png"):
        find_pairs(tmp_path)


def test_lists_say_which_images_are_for_which_split(tmp_path: Path) -> None:
    write_pairs(tmp_path, "JPEGImages/frame {}.v1.jpg", "SegmentationClass/frame {}.v1.png", count=9)
    (tmp_path / "SegmentationClass/frame 08.v1.png").unlink()  # as in Pascal VOC, where few images have maps
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"frame {number:02d}.v1\n" for number in range(5)))
    (lists / "val.txt").write_text("frame 05.v1\nframe 04.v1\nframe 77.v1\n")
    (lists / "trainval.txt").write_text("frame 00.v1\n")
    other = tmp_path / "ImageSets/Main"
    other.mkdir()
    (other / "train.txt").write_text("frame 08.v1\n")
    pairs = find_pairs(tmp_path)
    assert {split: [file[-9:-7] for file in files] for split, files in pairs.splits.items()} == {
        "train": ["00", "01", "02", "03"],
        "val": ["04", "05"],
    }
    assert {what: len(files) for what, files in pairs.left_out.items()} == {
        "images that ImageSets/Segmentation/train.txt and ImageSets/Segmentation/val.txt do not name": 3,
        "entries of ImageSets/Segmentation/train.txt and ImageSets/Segmentation/val.txt without an image": 1,
        "repeated entries, of images that the list for test or val names too": 1,
    }


def test_lists_beside_plain_folders_are_read_and_cvats_list_of_everything_is_none(tmp_path: Path) -> None:
    write_pairs(tmp_path, "images/{}.jpg", "masks/{}.png", count=6)
    (tmp_path / "default.txt").write_text("".join(f"{number:02d}\n" for number in range(6)))
    assert counts(tmp_path) == {"train": 6}
    (tmp_path / "train.txt").write_text("images/00.jpg\nimages/01.jpg\n")
    (tmp_path / "test.txt").write_text("./images/02.jpg masks/02.png\n03\n")
    assert counts(tmp_path) == {"train": 2, "test": 2}
    (tmp_path / "old").mkdir()
    (tmp_path / "old/train.txt").write_text("00\n")
    with pytest.raises(UserError, match=r"lists of splits in several folders \(\., old\)"):
        find_pairs(tmp_path)


def test_the_folder_of_training_images_is_found(tmp_path: Path) -> None:
    for start, split in enumerate(("train", "val")):
        write_pairs(tmp_path, f"{split}/images/{{}}.png", f"{split}/masks/{{}}.png", start=10 * start)
    assert folders_of_images(tmp_path) == [str(tmp_path / "train/images")]


def test_photos_in_folders_named_for_maps_are_predicted(tmp_path: Path) -> None:
    write_photos(tmp_path / "images")
    write_photos(tmp_path / "labels")
    write_photos(tmp_path / "test/masks")
    assert len(images_to_predict(tmp_path)) == 12
