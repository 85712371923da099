"""Folders in COCO's format: what is read, left out and refused."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_sets import annotation, change, load, save, write_set
from PIL import Image

from lit_splitmask.annotations import rle
from lit_splitmask.datamodules import Budget, CocoDetection, DetectionAugment
from lit_splitmask.errors import UserError

STRAY = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 2, 2, 1, 2]]}
PLAIN = DetectionAugment(hflip=0.0, crop=0.0, min_scale=1.0, num_scales=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def opened(root: Path, **settings: Any) -> CocoDetection:
    values: dict[str, Any] = {"batch_size": 2, "num_workers": 0, "budget": Budget(steps=4), "num_epochs": 1}
    data = CocoDetection(str(root), settings.pop("image_size", 64), max_size=96, **(values | settings))
    data.prepare_data()
    data.setup("fit")
    return data


def runs(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed run lengths of (H, W) bool, column by column, in a plain loop."""
    counts, current, length = [], False, 0
    for value in mask.T.ravel().tolist():
        if value != current:
            counts.append(length)
            current, length = value, 0
        length += 1
    return {"size": list(mask.shape), "counts": [*counts, length]}


def first_image(root: Path, split: str = "train") -> dict[str, Any]:
    """The image with the smallest id, which comes first."""
    return min(load(root, split)["images"], key=lambda image: image["id"])


def only(root: Path, split: str, *objects: dict[str, Any]) -> dict[str, Any]:
    """Reduces a split to its first image, with these objects; returns the image."""
    image = first_image(root, split)
    annotations = [
        {"category_id": 3, "iscrowd": 0, **one, "id": number + 1, "image_id": image["id"]}
        for number, one in enumerate(objects)
    ]
    change(root, split, images=[image], annotations=annotations)
    return image


def test_labels_are_indices_of_the_categories_and_ids_are_recovered(root: Path) -> None:
    data = opened(root)
    assert data.class_names == ["disc", "bar", "roof"]
    assert data.category_ids == [0, 3, 90]
    samples = data.source.splits["val"]
    stored = load(root, "val")
    assert data.image_ids(samples) == sorted(image["id"] for image in stored["images"])
    images = data.eval_images(samples)
    for index, image_id in enumerate(data.image_ids(samples)):
        expected = [one for one in stored["annotations"] if one["image_id"] == image_id]
        truth = images[index]["truth"]
        assert [data.category_ids[label] for label in truth["labels"].tolist()] == [e["category_id"] for e in expected]
        assert truth["boxes"].tolist() == [e["bbox"] for e in expected]


def test_coco_2017s_own_names_are_known(tmp_path: Path) -> None:
    data = opened(write_set(tmp_path / "coco", year="2017"))
    assert len(data.train_samples) == 6
    assert data.train_samples.files[0].startswith("train2017/")
    assert data.schedule.steps == 4


def test_an_unused_category_that_repeats_a_name_is_left_out(root: Path) -> None:
    for split in ("train", "val"):
        change(
            root,
            split,
            categories=[*load(root, split)["categories"], {"id": 7, "name": "bar"}, {"id": 8, "name": "new"}],
        )
    assert opened(root).class_names == ["disc", "bar", "new", "roof"]


def test_two_used_categories_of_one_name_get_different_names(root: Path) -> None:
    names = [{"id": 0, "name": "a"}, {"id": 3, "name": "a"}, {"id": 90, "name": "b"}]
    for split in ("train", "val"):
        change(root, split, categories=names)
    assert opened(root).class_names == ["a (0)", "a (3)", "b"]


def test_images_without_objects_are_evaluated_but_not_trained_on(root: Path) -> None:
    for split in ("train", "val"):
        image = first_image(root, split)
        change(root, split, annotations=[a for a in load(root, split)["annotations"] if a["image_id"] != image["id"]])
    data = opened(root)
    assert (len(data.train_samples), len(data.source.splits["val"])) == (5, 3)
    truth = data.eval_images(data.source.splits["val"])[0]["truth"]
    assert truth["boxes"].shape == (0, 4)
    assert truth["masks"] == []


@pytest.mark.parametrize("compressed", [False, True])
def test_crowds_in_run_lengths_are_passed_to_evaluation_only(root: Path, compressed: bool) -> None:
    image = first_image(root)
    mask = np.zeros((image["height"], image["width"]), dtype=bool)
    mask[5:20, 8:30] = True
    crowd: dict[str, Any] = {"bbox": [8, 5, 22, 15], "area": 330, "iscrowd": 1, "segmentation": runs(mask)}
    if compressed:
        crowd["segmentation"] = rle.as_json(rle.encode(torch.from_numpy(mask)[None])[0])
    shape = annotation(1, image["id"], 3, (30, 30, 12, 14))
    for split in ("train", "val"):
        only(root, split, crowd, shape)
    data = opened(root, augment=PLAIN)
    target = data.train_images()[0]["target"]
    assert target["labels"].tolist() == [1]
    truth = data.eval_images(data.source.splits["val"])[0]["truth"]
    assert truth["iscrowd"].tolist() == [1, 0]
    assert np.array_equal(rle.decode(truth["masks"], mask.shape)[0].numpy(), mask)


def test_a_mask_of_run_lengths_moves_like_its_polygon(root: Path) -> None:
    image = first_image(root)
    shape = annotation(1, image["id"], 3, (10, 12, 20, 15))
    polygon = shape["segmentation"]
    size = (image["height"], image["width"])
    of_runs = rle.as_json(rle.rasterise(polygon, size))
    only(root, "train", {**shape, "segmentation": polygon}, {**shape, "segmentation": of_runs})
    data = opened(root, augment=DetectionAugment(hflip=1.0, crop=0.0, min_scale=0.7, num_scales=1), image_size=90)
    one, other = data.train_images()[0]["target"]["masks"]
    assert (one & other).sum() >= 0.93 * (one | other).sum()


BAD_RUNS: list[Any] = [[3, 4], [], "abc", "", "P", [-1, 10**6], [1.5, 2], ["a", 3], "\x7f"]


def test_objects_that_cannot_be_used_are_counted_in_one_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = first_image(root)
    good = annotation(1, image["id"], 3, (4, 4, 12, 12))
    beyond = annotation(2, image["id"], 3, (-5, -6, 20, 20))
    bad = [
        {**good, "bbox": [3, 3, 0, 5]},
        {**good, "bbox": [3, 3, 5, -1]},
        {**good, "bbox": [500, 3, 5, 5]},
        {**good, "segmentation": [[1, 1, 5, 5]]},
        {**good, "segmentation": []},
        {**good, "segmentation": [[1, 1, 5, 5, 8, 8, 9]]},
        {**good, "segmentation": None},
        {**good, "segmentation": [1, 1, 5, 5, 8, 8]},
        {**good, "segmentation": [[1, 1, 5, None, 8, 8]]},
        {**good, "segmentation": {"size": None, "counts": [1]}},
        {**good, "segmentation": {"size": [1, 1], "counts": [1]}},
        {**good, "bbox": [float("nan"), 3, 5, 5]},
        {**good, "bbox": [3, 3, float("inf"), 5]},
        {**good, "segmentation": [[1, 1, 5, float("nan"), 8, 8]]},
        {**good, "segmentation": [[1, 1, 5, 1e9, 8, 8]]},
        *(
            {**good, "segmentation": {"size": [image["height"], image["width"]], "counts": counts}}
            for counts in BAD_RUNS
        ),
    ]
    only(root, "train", good, beyond, *bad)
    with caplog.at_level(logging.WARNING):
        data = opened(root, augment=PLAIN)
    warnings = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(warnings) == 1
    for text in (
        "3 with boxes without area",
        "2 with polygons far outside",
        f"{len(BAD_RUNS)} with run lengths that do not fill",
        "2 with boxes outside",
        "5 with polygons of fewer than 3",
        "2 with run lengths of another size",
        "1 without a mask",
    ):
        assert text in warnings[0]
    boxes = data.train_images()[0]["target"]["boxes"]
    assert len(boxes) == 2
    assert (boxes >= 0).all()
    assert boxes[1, :2].tolist() == [0, 0]  # clipped


def test_boxes_alone_need_no_masks(root: Path) -> None:
    for split in ("train", "val"):
        stripped = [{k: v for k, v in a.items() if k != "segmentation"} for a in load(root, split)["annotations"]]
        change(root, split, annotations=stripped)
    with pytest.raises(UserError, match="masks=false"):
        opened(root)
    item = opened(root, masks=False).train_images()[0]
    assert item["target"].keys() == {"boxes", "labels"}


NOT_COCO: list[tuple[Any, str]] = [
    ([1, 2], "no list 'images'"),
    ({"images": []}, "no list 'annotations'"),
    ({"images": [], "annotations": []}, "no list 'categories'"),
    ({"images": [{"id": 1, "file_name": "a"}]}, "lacks 'height', 'width'"),
    ({"images": [{"id": "x", "file_name": "a", "height": 1, "width": 1}]}, "whole numbers that are all different"),
    ({"images": [{"id": 2**70, "file_name": "a", "height": 1, "width": 1}]}, "whole numbers that are all different"),
    ({"images": [{"id": n, "file_name": "a", "height": 1, "width": 1} for n in (1, 2)]}, "lists the image a 2 times"),
    ({"annotations": [{**STRAY, "category_id": [1]}]}, r"category_id .* is \[1\], which is no number"),
    ({"annotations": [{**STRAY, "iscrowd": "no"}]}, "iscrowd .* is 'no'"),
    ({"annotations": [{**STRAY, "area": ""}]}, "area .* is ''"),
    ({"images": [{"id": 1, "file_name": "a", "height": None, "width": 1}]}, "height None"),
    ({"annotations": [{"image_id": 1, "category_id": 1}]}, "entry 0 of 'annotations' lacks 'bbox'"),
    ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1]}]}, "is not .left, top"),
    ({"annotations": [STRAY]}, "annotation of image 1, which is not among"),
]


@pytest.mark.parametrize(("stored", "message"), NOT_COCO)
def test_a_file_not_in_cocos_format_is_refused_with_what_is_missing(root: Path, stored: Any, message: str) -> None:
    if isinstance(stored, dict) and len(stored) == 1 and stored != {"images": []}:
        stored = {"images": [], "annotations": [], "categories": [], **stored}
    save(root, "train", stored)
    with pytest.raises(UserError, match=message):
        opened(root)


def test_a_file_that_is_not_json_is_refused(root: Path) -> None:
    (root / "annotations" / "instances_val.json").write_text("{nonsense")
    with pytest.raises(UserError, match="not valid JSON"):
        opened(root)


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotations/instances_train\.json"):
        opened(tmp_path)


def test_missing_images_are_named_and_counted(root: Path) -> None:
    for number in range(4):
        (root / "train" / f"train{number:03d}.png").unlink()
    with pytest.raises(
        UserError, match=r"4 of the 6 annotated images are missing .*train003\.png, train002\.png, train001\.png, …"
    ):
        opened(root)


def test_a_training_set_without_objects_is_refused(root: Path) -> None:
    change(root, "train", annotations=[])
    with pytest.raises(UserError, match="no object to train on in 6 images"):
        opened(root)


def test_a_val_split_without_objects_is_refused_before_training(root: Path) -> None:
    change(root, "val", annotations=[])
    with pytest.raises(UserError, match="no object to evaluate in 3 images"):
        opened(root)


def test_a_test_split_without_annotations_is_only_predicted_on(root: Path) -> None:
    stored = load(root, "val")
    (root / "annotations" / "instances_test.json").write_text(json.dumps({**stored, "annotations": []}))
    (root / "test").symlink_to(root / "val")
    data = opened(root)
    assert set(data.source.splits) == {"train", "val"}
    assert list(data.predict_paths) == [f"test/{name}" for name in data._read()["test"].names]


def test_whole_numbers_may_be_written_as_fractions(root: Path) -> None:
    shape = annotation(1, first_image(root)["id"], 3, (4, 4, 12, 12))
    only(root, "train", {**shape, "iscrowd": 0.0, "category_id": 3.0})
    assert opened(root, augment=PLAIN).train_images()[0]["target"]["labels"].tolist() == [1]


def test_images_are_evaluated_one_at_a_time_so_none_is_padded(root: Path) -> None:
    loader = opened(root, batch_size=4).val_dataloader()
    assert [len(batch["image"]) for batch in loader] == [1, 1, 1]


def test_categories_that_disagree_are_refused(root: Path) -> None:
    change(root, "val", categories=[{"id": 0, "name": "other"}, *load(root, "val")["categories"][1:]])
    with pytest.raises(UserError, match="disagree: category 0"):
        opened(root)


def test_an_image_whose_size_differs_from_the_file_is_refused(root: Path) -> None:
    image = first_image(root)
    Image.new("RGB", (33, 44)).save(root / "train" / image["file_name"])
    with pytest.raises(UserError, match="44×33 pixels"):
        opened(root).train_images()[0]


def test_the_long_side_cannot_be_less_than_the_short_one(root: Path) -> None:
    with pytest.raises(UserError, match="max_size=96"):
        opened(root, image_size=100)


def test_the_smallest_image_is_found_on_disk_and_resized(root: Path) -> None:
    data = opened(root, image_size=96)
    assert data.smallest_image() == (min(("train001.png", "val001.png")), 48)
    image = first_image(root)
    change(
        root,
        "train",
        images=[{**image, "height": 20, "width": 1000}],
        annotations=[annotation(1, image["id"], 3, (1, 1, 9, 9))],
    )
    data = CocoDetection(str(root), 96, max_size=96)
    assert data.smallest_image() == (image["file_name"], 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_cannot_change_a_batch(root: Path, workers: int) -> None:
    alone, shared = (list(opened(root, num_workers=n).train_dataloader()) for n in (0, workers))
    assert len(alone) == len(shared) == 4
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["index"], other["index"])
        assert all(torch.equal(a, b) for a, b in zip(one["image"], other["image"], strict=True))
        for a, b in zip(one["target"], other["target"], strict=True):
            assert a.keys() == b.keys()
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_each_pass_draws_different_views(root: Path) -> None:
    images = opened(root).train_images()
    views = [images[(number, 0)]["image"].shape for number in range(8)]
    assert len(set(views)) > 2
    again = [images[(number, 0)]["image"].shape for number in range(8)]
    assert views == again


def test_one_channel_is_the_luminance(root: Path) -> None:
    assert opened(root, channels=1).train_images()[0]["image"].shape[0] == 1


def test_ground_truth_from_a_worker_holds_no_file_open(root: Path) -> None:
    loader = opened(root, num_workers=1).val_dataloader()
    values = [batch[name] for batch in loader for name in ("truth", "index", "size")]
    tensors = [tensor for value in values for tensor in _tensors(value)]
    assert len(tensors) > 5
    assert not any(tensor.is_shared() for tensor in tensors)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [tensor for one in inside for tensor in _tensors(one)]
