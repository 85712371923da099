"""Folders of images and label maps: layouts, classes, crops, and what is refused."""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folder_data import ready, same
from PIL import Image
from scenes import COLOURS, draw_scene, save, scene_data, write_pairs, write_scenes

from lit_splitmask.annotations.label_maps import read_map, to_values
from lit_splitmask.datamodules import ImageFolder, SegmentationFolder, looks_like_segmentation
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED


def opened(root: Path, stage: str = "fit", **settings: Any) -> SegmentationFolder:
    data = scene_data(root, **settings)
    data.prepare_data()
    data.setup(stage)
    return data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", {"train": 6, "val": 3, "test": 2})


def test_splits_classes_and_maps_match_the_disk(root: Path) -> None:
    data = opened(root)
    assert {name: len(split) for name, split in data.source.splits.items()} == {"train": 6, "val": 3, "test": 2}
    assert (data.class_names, data.void, data.smallest_image()[1]) == (["0", "1", "2"], 255, 40)
    for number, batch in enumerate(data.val_dataloader(), start=6):
        image, classes = draw_scene(number)
        assert batch["image"].shape == (1, 3, 40, 56)
        assert (batch["image"][0].permute(1, 2, 0).numpy() == image).all()
        assert (batch["map"][0].numpy() == np.where(classes == 255, IGNORED, classes.astype(int))).all()
        assert batch["size"].tolist() == [[40, 56]]


def test_ade20ks_folders_are_read_with_0_as_void(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    write_scenes(root, {"training": 4, "validation": 2}, values=[1, 2, 3, 0])
    (root / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t9\t9\t1\twall\n2\t0.1\t9\t9\t1\tsky\n3\t0\t1\t1\t0\tcar, auto\n"
    )
    for folder in (root, tmp_path):
        data = opened(folder)
        assert (data.void, data.class_names) == (0, ["wall", "sky", "car, auto"])
        assert {name: len(split) for name, split in data.source.splits.items()} == {"train": 4, "val": 2}
        assert {int(v) for batch in data.val_dataloader() for v in batch["map"].unique()} == {-1, 0, 1, 2}


def test_a_folder_called_training_alone_does_not_mean_ade20k(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "mine", {"training": 4, "validation": 2})
    data = opened(root)
    assert (data.void, data.class_names) == (255, ["0", "1", "2"])
    assert (len(data.source.splits["train"]), len(data.source.splits["val"])) == (4, 2)
    for path in root.rglob("annotations/*/*.png"):
        values = read_map(path)
        Image.fromarray(np.where(values == 255, 0, values).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match=r"has the folders of ADE20K.* set data\.void to 0 if it is"):
        opened(root)
    assert opened(root, void=0).num_classes == 2


def test_splits_have_several_spellings_and_other_folders_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_scenes(tmp_path / "scenes", {"train2017": 4, "Val": 2, "extra": 1})
    with caplog.at_level(logging.WARNING):
        data = opened(root)
    assert {name: len(files) for name, files in data.source.splits.items()} == {"train": 4, "val": 2}
    assert "Left out: 1 images in images/extra, which is neither train nor val nor test" in caplog.text
    write_scenes(root, {"val": 1})
    with pytest.raises(UserError, match="several folders of images for one split: images/Val, images/val"):
        opened(root)


def test_a_split_without_its_maps_is_refused(root: Path) -> None:
    (root / "annotations/val").rename(root / "annotations/validation")
    assert len(opened(root).source.splits["val"]) == 3  # another spelling
    (root / "annotations/validation").rename(root / "annotations/other")
    with pytest.raises(UserError, match=r"images/val has no label maps"):
        opened(root)


def test_void_is_not_guessed_where_255_may_be_a_class(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", {"train": 3})
    path = next((root / "annotations/train").glob("*.png"))
    values = read_map(path)
    values[:2] = 299
    Image.fromarray(values.astype(np.uint16)).save(path)
    with pytest.raises(UserError, match=r"values above 255, .* set data\.void"):
        opened(root)
    with pytest.raises(UserError, match=r"5 different values, but the highest, 299 .*would make 300 classes"):
        opened(root, void=300)
    assert opened(root, void=300, num_classes=300).num_classes == 300


def test_values_above_a_void_in_the_middle_move_down(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", values=[0, 1, 7, 5])
    data = opened(root, void=5, num_classes=7)
    assert data.class_names == ["0", "1", "2", "3", "4", "6", "7"]
    values = {int(v) for batch in data.val_dataloader() for v in batch["map"].unique()}
    assert values == {-1, 0, 1, 6}
    assert to_values(np.array([0, 4, 5, 6]), 5).tolist() == [0, 4, 6, 7]


def test_a_split_without_a_label_is_refused(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes")
    for path in (root / "annotations/val").glob("*.png"):
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    with pytest.raises(UserError, match="No pixel of the 3 label maps of val"):
        opened(root)


def test_maps_that_are_jpegs_are_recognised_and_refused(root: Path) -> None:
    for path in sorted((root / "annotations").rglob("*.png")):
        Image.open(path).convert("L").save(path.with_suffix(".jpg"))
        path.unlink()
    assert looks_like_segmentation(root)
    with pytest.raises(UserError, match=r"09\.jpg is a JPEG, whose compression changes values"):
        opened(root)
    with pytest.raises(UserError, match=r"holds label maps beside its images.*--data\.root .*images/train"):
        ImageFolder(str(root), 16, index_dir=str(root.parent / "index")).prepare_data()


def test_without_val_a_share_of_train_is_held_out_and_copies_stay_together(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", {"train": 10})
    for kind in ("images", "annotations"):
        save(root / kind / "train" / "copy.png", np.asarray(Image.open(root / kind / "train" / "00.png")))
    data = opened(root, val_share=0.2)
    splits = {name: set(split.files) for name, split in data.source.splits.items()}
    assert not splits["train"] & splits["val"]
    assert len(splits["train"] | splits["val"]) == 11
    assert any({"images/train/00.png", "images/train/copy.png"} <= files for files in splits.values())
    assert opened(root, val_share=0.2, seed=9).source.splits["val"].files[:] == data.source.splits["val"].files[:]
    assert "val" not in opened(root, val_share=0.0).source.splits


def test_a_training_image_that_val_also_holds_is_left_out(root: Path) -> None:
    for kind in ("images", "annotations"):
        save(root / kind / "train" / "copy.png", np.asarray(Image.open(root / kind / "val" / "06.png")))
    assert len(opened(root).train_samples) == 6


def test_a_folder_of_images_alone_is_predicted_on(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "new" / "deep" / f"{number}.png", draw_scene(number)[0])
    data = opened(tmp_path / "new", "predict")
    assert data.predict_paths[:] == [f"deep/{number}.png" for number in range(3)]
    assert all("map" not in batch for batch in data.predict_dataloader())
    with pytest.raises(UserError, match="no images with label maps to train on"):
        data.setup("fit")


def test_every_image_is_predicted_once_and_no_map(root: Path) -> None:
    for path in (root / "annotations" / "test").iterdir():
        path.write_bytes(b"never read")
    save(root / "images/loose.png", draw_scene(50)[0])
    save(root / "new/deep/loose.png", draw_scene(51)[0])
    (root / "new/broken.jpg").write_bytes(b"no image")
    (root / "new/phone.heic").write_bytes(b"")
    data = scene_data(root)
    data.only_predict()
    data.prepare_data()
    assert not data.record.exists()
    data.setup("predict")
    numbered = [f"images/{split}/{n:02d}.png" for split, n in zip(["train"] * 6 + ["val"] * 3, range(9), strict=True)]
    expected = [*numbered, "images/test/09.png", "images/test/10.png", "images/loose.png", "new/deep/loose.png"]
    assert data.predict_paths[:] == sorted(expected)
    assert data.predict_problems.keys() == {"new/broken.jpg", "new/phone.heic"}
    batches = list(data.predict_dataloader())
    assert len(batches) == 13
    assert all("map" not in batch for batch in batches)
    assert data.smallest_image()[1] == 40


def test_a_test_folder_without_maps_is_not_evaluated(root: Path) -> None:
    for path in (root / "annotations" / "test").iterdir():
        path.unlink()
    (root / "annotations" / "test").rmdir()
    data = opened(root)
    assert data.source.splits.keys() == {"train", "val"}
    assert len(data.predict_paths) == 11


def test_class_names_come_from_a_file(root: Path, tmp_path: Path) -> None:
    (root / "classes.txt").write_text("ground\ndisc\nbar\n")
    assert opened(root).class_names == ["ground", "disc", "bar"]
    (tmp_path / "names.txt").write_text("ground\ndisc\nbar\nnever\n")
    assert opened(root, classes=str(tmp_path / "names.txt"), void=255).num_classes == 4
    with pytest.raises(
        UserError, match=r"the value 255, but none has the value 3, .*set data\.void to 255 if .*, or pass "
    ):
        opened(root, classes=str(tmp_path / "names.txt"))


def test_roboflows_masks_beside_their_images_are_read_with_their_names(tmp_path: Path) -> None:
    for start, split in ((0, "train"), (10, "valid")):
        images, maps = f"{split}/{{}}_jpg.rf.1a.jpg", f"{split}/{{}}_jpg.rf.1a_mask.png"
        write_pairs(tmp_path / "robo", images, maps, start=start, values=[0, 1, 2, 0])
        (tmp_path / "robo" / split / "_classes.csv").write_text("Pixel Value, Class\n0, ground\n1, disc\n2, bar\n")
    data = opened(tmp_path / "robo")
    assert data.class_names == ["ground", "disc", "bar"]
    assert {name: len(split) for name, split in data.source.splits.items()} == {"train": 4, "val": 4}


def spoil_size(root: Path) -> None:
    save(root / "annotations/train/00.png", np.zeros((40, 55), dtype=np.uint8))


def spoil_value(root: Path) -> None:
    save(root / "annotations/val/06.png", np.full((40, 56), 9, dtype=np.uint8))


def spoil_colour(root: Path) -> None:
    save(root / "annotations/train/00.png", COLOURS[np.minimum(draw_scene(0)[1], 3)])


def spoil_labels(root: Path) -> None:
    for path in (root / "annotations/train").iterdir():
        save(path, np.full((40, 56), 255, dtype=np.uint8))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_size, r"annotations/train/00\.png is 55 x 40 px, but its image is 56 x 40"),
        (spoil_value, r"annotations/val/06\.png has the value 9, but there are 3 classes, with values up to 2"),
        (spoil_colour, r"00\.png is a colour picture"),
        (spoil_labels, r"No pixel of the 6 label maps .* is labelled"),
        (
            lambda root: (root / "annotations/train/00.png").unlink(),
            r"1 of the 6 images .* such as images/train/00\.png",
        ),
        (lambda root: (root / "images").rename(root / "annotations/images"), r"no images of the same names"),
        (lambda root: (root / "classes.txt").write_text("a\nb\n"), r"has the value 2, but there are 2 classes"),
        (lambda root: (root / "classes.txt").write_text("a\nb\na\n"), r"names the class a more than once"),
    ],
)
def test_unusable_files_are_refused_by_name(root: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(root)
    with pytest.raises(UserError, match=message):
        opened(root)


@pytest.mark.parametrize(
    "settings",
    [
        {"short_side": 0},
        {"num_classes": 0},
        {"val_share": 1.0},
        {"num_classes": 2},
        {"void": -1},
    ],
)
def test_impossible_settings_are_refused(root: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        opened(root, **settings)


def test_a_file_that_changes_is_read_again(root: Path) -> None:
    assert opened(root).num_classes == 3
    classes = draw_scene(0)[1]
    classes[10, 10] = 3
    save(root / "annotations/train/00.png", classes)
    assert opened(root).num_classes == 4


def test_a_folder_of_label_maps_is_recognised(root: Path, tmp_path: Path) -> None:
    assert looks_like_segmentation(root)
    assert looks_like_segmentation(tmp_path)  # one level up
    assert not looks_like_segmentation(root / "images")


def test_the_training_images_can_be_pre_trained_on(root: Path) -> None:
    data = ImageFolder(
        str(root / "images" / "train"), 32, batch_size=4, num_workers=0, index_dir=str(root.parent / "i")
    )
    data.prepare_data()
    data.setup("validate")
    assert sum(map(len, data.source.splits.values())) == 6


def test_one_channel_is_the_luminance(root: Path) -> None:
    data = opened(root, channels=1)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 1, 32, 32)
    assert next(iter(data.val_dataloader()))["image"].shape == (1, 1, 40, 56)
    assert batch["map"].dtype == torch.int16


def test_workers_and_the_order_of_files_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_scenes(tmp_path / "scenes", {"train": 6, "val": 3})
    found = []
    for num_workers in (0, 1, 2):
        data = ready(scene_data(root, num_workers=num_workers, index_dir=str(tmp_path / f"index{num_workers}")))
        found.append((data.source.splits["train"].files, [*data.train_dataloader(), *data.val_dataloader()]))
        scandir = os.scandir
        if num_workers == 0:  # the others see the folders in another order
            monkeypatch.setattr(os, "scandir", lambda path=".", read=scandir: reversed_entries(read(path)))
    for files, loaded in found[1:]:
        assert list(files) == list(found[0][0])
        assert same(loaded, found[0][1])


@contextlib.contextmanager
def reversed_entries(entries: Any) -> Any:
    with entries as one_by_one:
        yield reversed(list(one_by_one))
