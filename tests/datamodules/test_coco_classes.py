"""Which objects and classes of a COCO folder are trained on: masks or boxes alone, crowds, categories, splits without objects."""

from pathlib import Path

import pytest
from coco_sets import annotation, change, load, only, opened, warnings_in, write_set

from lit_splitmask.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def without_masks(root: Path, split: str, count: int, category: int | None = None) -> None:
    """Takes the masks from objects of a split: from the first few, or from those of a category."""
    objects = load(root, split)["annotations"]
    chosen = [one for one in objects if category in (None, one["category_id"])][:count]
    for one in chosen:
        one["segmentation"] = []
    change(root, split, annotations=objects)


def test_boxes_alone_are_trained_if_more_than_a_tenth_have_no_mask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_set(tmp_path / "set", train=10)  # 30 objects
    without_masks(root, "train", 3)
    data = opened(root)
    assert data.masks
    assert "objects are left out: 3 with a box but no mask" in warnings_in(caplog.records)[0]
    assert sum(len(item["truth"]["labels"]) for item in data.split_images("train")) == 27  # type: ignore[union-attr]
    caplog.clear()
    without_masks(root, "train", 4)
    data = opened(root)
    assert not data.masks
    assert data.train_images()[0]["target"].keys() == {"boxes", "labels"}
    assert sum(len(item["truth"]["labels"]) for item in data.split_images("train")) == 30  # type: ignore[union-attr]
    (line,) = warnings_in(caplog.records)
    assert "26 of the 30 objects of train have a mask" in line
    assert opened(root, masks=True).masks


def test_boxes_alone_are_trained_if_a_class_has_no_mask(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_set(tmp_path / "set", train=30)
    objects = load(root)["annotations"]
    discs = [one for one in objects if one["category_id"] == 0]
    change(root, "train", annotations=[one for one in objects if one not in discs[2:]])
    without_masks(root, "train", 2, category=0)
    assert not opened(root).masks
    assert "no object of disc has one" in warnings_in(caplog.records)[0]
    with pytest.raises(UserError, match=r"The class disc has 2 object\(s\) .* boxes alone \(--data\.masks=false\)"):
        opened(root, masks=True)


def test_boxes_alone_are_trained_if_val_has_no_masks(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    without_masks(root, "val", 9)
    assert not opened(root).masks
    assert "0 of the 9 objects of val have a mask" in warnings_in(caplog.records)[0]


def test_without_any_mask_boxes_are_trained_unless_masks_are_asked_for(root: Path) -> None:
    for split in ("train", "val"):
        stripped = [{k: v for k, v in a.items() if k != "segmentation"} for a in load(root, split)["annotations"]]
        change(root, split, annotations=stripped)
    assert not opened(root).masks
    assert opened(root, masks=False).train_images()[0]["target"].keys() == {"boxes", "labels"}
    with pytest.raises(UserError, match=r"18 of the 18 objects .* have a box but no mask .*--data\.masks=false"):
        opened(root, masks=True)


def test_crowds_are_counted_with_the_images_that_have_nothing_else(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objects = load(root)["annotations"]
    lost = sorted({one["image_id"] for one in objects})[:4]
    for one in objects:
        one["iscrowd"] = int(one["image_id"] in lost)
        one["category_id"] = [0, 3, 90][one["id"] % 3]
    change(root, "train", annotations=objects)
    data = opened(root)
    assert len(data.train_samples) == 2
    (line,) = warnings_in(caplog.records)
    assert "12 of the 18 objects are crowds (iscrowd: 1), which are not trained on" in line
    assert "4 of the 6 training images have no other object and are left out" in line
    for one in objects:
        one["iscrowd"] |= int(one["category_id"] == 90)
    change(root, "train", annotations=objects)
    with pytest.raises(UserError, match=r"The class roof has 6 object\(s\) .* but none to train on: all are crowds"):
        opened(root)


def test_categories_without_objects_are_no_classes(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = [{"id": 7, "name": "bar", "supercategory": "none"}, {"id": 8, "name": "shapes"}]
    for split in ("train", "val"):
        change(root, split, categories=[*load(root, split)["categories"], *more])
    data = opened(root)
    assert data.class_names == ["disc", "bar", "roof"]
    assert warnings_in(caplog.records) == [
        "Categories without objects in any annotation file are left out of the classes: bar, shapes."
    ]


def test_a_class_that_only_val_has_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    objects = load(root)["annotations"]
    change(root, "train", annotations=[{**one, "category_id": 3 * (one["id"] % 2)} for one in objects])
    only(root, "val", {**annotation(1, 1, 90, (4, 4, 12, 12))})
    assert opened(root).class_names == ["disc", "bar", "roof"]
    assert "No image of train has objects of roof, but val or test has" in warnings_in(caplog.records)[0]


def test_a_set_without_training_objects_is_refused(root: Path) -> None:
    change(root, "train", annotations=[])
    with pytest.raises(UserError, match="no object to train on in 6 images"):
        opened(root)
    (root / "annotations" / "instances_train.json").unlink()
    with pytest.raises(UserError, match=r"no annotations to train on \(there is .*instances_val\.json for val\)"):
        opened(root)
    assert len(opened(root, "validate").source.splits["val"]) == 3


def test_a_val_split_without_objects_is_refused_before_training(root: Path) -> None:
    change(root, "val", annotations=[])
    with pytest.raises(UserError, match="no object to evaluate in 3 images"):
        opened(root)
