"""COCO folders as people have them: layouts, splits, masks, and what is left out or refused before training."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_sets import (
    as_cvat,
    as_roboflow,
    change,
    coco_data,
    first_image,
    load,
    opened,
    rename,
    save,
    warnings_in,
    write_set,
)
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.images import scan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def names(data: Any, split: str = "train") -> list[str]:
    return [name.rpartition("/")[2] for name in data.source.splits[split].files]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def test_a_plain_set_is_read_without_a_word(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = opened(root)
    assert warnings_in(caplog.records) == []
    assert data.masks
    assert data.source.splits["train"].files[0].startswith("train/")


def test_coco_2017s_own_names_are_known(tmp_path: Path) -> None:
    data = opened(write_set(tmp_path / "coco", year="2017"))
    assert len(data.train_samples) == 6
    assert data.train_samples.files[0].startswith("train2017/")
    assert data.schedule.steps == 4


def elsewhere(root: Path) -> Path:
    """A single annotation file of another name, and all images in one folder without a split."""
    (root / "photos").mkdir()
    for split in ("train", "val"):
        for path in (root / split).iterdir():
            path.rename(root / "photos" / path.name)
        (root / split).rmdir()
    folder = root / "annotations"
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").rename(root / f"labels_{split}.json")
    folder.rmdir()
    return root


def windows(root: Path) -> Path:
    """Names with backslashes, relative to the split's folder."""
    for split in ("train", "val"):
        (root / "new").mkdir()
        (root / split).rename(root / "new" / "pictures")
        (root / "new").rename(root / split)
        rename(root, split, "pictures\\{}")
    return root


def absolute(root: Path) -> Path:
    for split in ("train", "val"):
        rename(root, split, f"{root.resolve()}/{split}/{{}}")
    return root


def of_another_machine(root: Path) -> Path:
    for split in ("train", "val"):
        rename(root, split, f"C:\\Users\\me\\set\\{split}\\{{}}")
    return root


@pytest.mark.parametrize("layout", [as_roboflow, elsewhere, windows, absolute, of_another_machine])
def test_other_layouts_hold_the_same_images_and_objects(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    plain, other = opened(write_set(tmp_path / "plain")), opened(layout(write_set(tmp_path / "other")))
    for split in ("train", "val"):
        assert names(other, split) == names(plain, split)
        expected = [item["truth"]["boxes"].tolist() for item in plain.split_images(split)]  # type: ignore[union-attr]
        assert [item["truth"]["boxes"].tolist() for item in other.split_images(split)] == expected  # type: ignore[union-attr]


def test_annotations_of_any_place_are_given_by_name(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    (root / "annotations" / "instances_train.json").rename(file)
    data = opened(root, annotations=str(file))
    assert len(data.train_samples) + len(data.source.splits["val"]) == 6  # val is cut: the file is all there is
    both = {"train": str(file), "valid": "annotations/instances_val.json"}
    assert names(opened(root, annotations=both), "val") == ["val002.png", "val001.png", "val000.png"]
    with pytest.raises(UserError, match=r"no annotation file gone\.json .* check --data\.annotations"):
        opened(root, annotations="gone.json")


def test_without_val_whole_images_are_cut_from_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = as_cvat(write_set(tmp_path / "set", train=20))
    image = Image.open(root / "images" / "default" / "train002.png")
    for number in (5, 8, 11):  # of the same size
        image.save(root / "images" / "default" / f"train{number:03d}.png")
    data = opened(root, val_share=0.3)
    train, val = names(data), names(data, "val")
    assert len(val) == pytest.approx(6, abs=3)
    assert sorted(train + val) == sorted(image["file_name"] for image in json.loads(_default(root))["images"])
    same = {f"train{number:03d}.png" for number in (2, 5, 8, 11)}
    assert same <= set(train) or same <= set(val)
    assert f"{len(val)} of the 20 images (val_share=0.3), which are not trained on" in "".join(
        warnings_in(caplog.records)
    )
    assert names(opened(root, val_share=0.3, seed=5), "val") == val
    ids = data.image_ids(data.source.splits["val"])
    assert ids == sorted(ids)


def _default(root: Path) -> str:
    return (root / "annotations" / "instances_default.json").read_text()


def test_a_class_stays_in_train_when_val_is_cut(tmp_path: Path) -> None:
    for number in range(12):  # whichever image is cut, its class must stay
        root = as_cvat(write_set(tmp_path / f"set{number}", train=5))
        stored = json.loads(_default(root))
        rare = stored["images"][number % 5]["id"]
        for one in stored["annotations"]:
            one["category_id"] = 90 if one["image_id"] == rare else 0
        (root / "annotations" / "instances_default.json").write_text(json.dumps(stored))
        data = opened(root, val_share=0.5)
        assert data.class_names == ["disc", "roof"]
        labels = {label for item in data.split_images("train") for label in item["truth"]["labels"].tolist()}  # type: ignore[union-attr]
        assert labels == {0, 1}


@pytest.mark.parametrize(("images", "share", "why"), [(2, 0.1, "2 training images are too few"), (6, 0, "val_share=0")])
def test_if_no_val_can_be_cut_it_is_said_that_the_last_checkpoint_is_kept(
    images: int, share: float, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = opened(as_cvat(write_set(tmp_path / "set", train=images)), val_share=share)
    assert set(data.source.splits) == {"train"}
    assert data.val_dataloader() == []
    (line,) = warnings_in(caplog.records)
    assert why in line
    assert "the last checkpoint is kept" in line


def test_truncated_images_are_named_and_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    truncate(root / "train" / "train003.png")
    truncate(root / "val" / "val001.png")
    data = opened(root)
    assert names(data) == ["train005.png", "train004.png", "train002.png", "train001.png", "train000.png"]
    assert names(data, "val") == ["val002.png", "val000.png"]
    lines = warnings_in(caplog.records)
    assert len(lines) == 2
    assert all("cannot be decoded" in line and "It is left out." in line for line in lines)
    for number in (0, 1, 2):
        truncate(root / "val" / f"val{number:03d}.png")
        truncate(root / "train" / f"train{number:03d}.png")
    with pytest.raises(UserError, match=r"7 of the 9 annotated images cannot be read"):
        opened(root)


def test_images_are_decoded_once_and_again_only_if_they_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    read_pixels = scan.read_pixels
    monkeypatch.setattr(scan, "read_pixels", lambda path: decoded.append(Path(path).name) or read_pixels(path))
    data = coco_data(root)
    data.prepare_data()
    data.prepare_data()
    data.setup("fit")
    assert sorted(decoded) == sorted([f"train{n:03d}.png" for n in range(6)] + [f"val{n:03d}.png" for n in range(3)])
    decoded.clear()
    os.utime(root / "train" / "train004.png", ns=(1, 1))
    opened(root)
    assert decoded == ["train004.png"]


def test_the_images_must_have_been_read_before_they_are_opened(root: Path) -> None:
    with pytest.raises(UserError, match=r"have not been read yet .* call prepare_data\(\) first"):
        coco_data(root).setup("fit")
    opened(root)
    coco_data(root).setup("fit")  # as another process does
    with pytest.raises(UserError, match="val_share"):
        coco_data(root, val_share=1.0)


def test_sizes_that_disagree_are_all_found_before_training(root: Path) -> None:
    for number in (1, 4):
        Image.new("RGB", (33, 44)).save(root / "train" / f"train{number:03d}.png")
    first, second = "train/train004.png is 33 × 44 px", "The same is true of train/train001.png"
    with pytest.raises(UserError, match=rf"2 of the 6 images .*{first} .* not 80 × 48 px\. {second}"):
        opened(root)


def test_a_size_before_the_exif_turn_is_said_to_be_one(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", sizes=((48, 80),))
    image = Image.open(root / "train" / "train000.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "train" / "train000.png", exif=exif)
    with pytest.raises(UserError, match=r"is 48 × 80 px .* not 80 × 48 px: .* before the rotation in its EXIF block"):
        opened(root)
    Image.new("RGB", (48, 80)).save(root / "train" / "train000.png")
    with pytest.raises(UserError, match="width and height are swapped"):
        opened(root)


def test_images_that_val_has_too_are_not_trained_on(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (0, 2):
        shutil.copy(root / "train" / f"train{number:03d}.png", root / "val" / f"val{number:03d}.png")
    data = opened(root)
    assert names(data) == ["train005.png", "train004.png", "train003.png", "train001.png"]
    assert len(data.source.splits["val"]) == 3
    (line,) = warnings_in(caplog.records)
    assert line.startswith(
        "2 image(s) of train are left out, since val has the same pixels, such as train/train002.png"
    )


def test_an_image_that_both_files_list_stays_in_val(root: Path) -> None:
    image = first_image(root)
    objects = [one for one in load(root)["annotations"] if one["image_id"] == image["id"]]
    rename(root, "val", "val/{}")
    stored = load(root, "val")
    copy = {**image, "id": 5000, "file_name": f"train/{image['file_name']}"}
    for one in objects:
        one["image_id"] = 5000
    change(root, "val", images=[*stored["images"], copy], annotations=[*stored["annotations"], *objects])
    data = opened(root)
    assert image["file_name"] in names(data, "val")
    assert image["file_name"] not in names(data)


def test_if_val_is_all_of_train_nothing_is_left_to_train_on(root: Path) -> None:
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")
    save(root, "val", load(root))
    with pytest.raises(UserError, match=r"No image of .*instances_train\.json is left to train on"):
        opened(root)


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no annotation file was found.*annotations/instances_train\.json"):
        opened(tmp_path)


def test_a_folder_in_yolos_format_is_named_with_the_way_to_convert_it(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(255, size=(20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.jpg")
        (tmp_path / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UserError, match=r"in the format of YOLO, .*from_yolo"):
        opened(tmp_path)


def test_a_test_split_without_annotations_is_only_predicted_on(root: Path) -> None:
    stored = load(root, "val")
    save(root, "test", {**stored, "annotations": []})
    (root / "test").mkdir()
    for number in range(3):
        pixels = np.full((*[(64, 64), (48, 80), (80, 56)][number], 3), 50 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(root / "test" / f"val{number:03d}.png")
    data = opened(root)
    assert set(data.source.splits) == {"train", "val"}
    assert list(data.predict_paths) == [f"test/val{number:03d}.png" for number in (2, 1, 0)]
