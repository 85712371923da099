"""What a detector gets from a COCO folder: labels, objects, views and batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_sets import PLAIN, annotation, change, first_image, load, only, opened, write_set
from PIL import Image

from lit_splitmask.annotations import rle
from lit_splitmask.datamodules import DetectionAugment
from lit_splitmask.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def runs(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed run lengths of (H, W) bool, column by column, in a plain loop."""
    counts, current, length = [], False, 0
    for value in mask.T.ravel().tolist():
        if value != current:
            counts.append(length)
            current, length = value, 0
        length += 1
    return {"size": list(mask.shape), "counts": [*counts, length]}


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
    only(root, "train", crowd, shape)
    only(root, "val", crowd, shape)
    data = opened(root, augment=PLAIN)
    target = data.train_images()[0]["target"]
    assert target["labels"].tolist() == [0]
    assert data.class_names == ["bar"]
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


def test_objects_beyond_the_edge_are_clipped_and_unusable_ones_are_left_out(root: Path) -> None:
    image = first_image(root)
    good = annotation(1, image["id"], 3, (4, 4, 12, 12))
    beyond = annotation(2, image["id"], 3, (-5, -6, 20, 20))
    only(root, "train", good, beyond, {**good, "bbox": [3, 3, 0, 5]}, {**good, "segmentation": []})
    boxes = opened(root, augment=PLAIN, masks=True).train_images()[0]["target"]["boxes"]
    assert len(boxes) == 2
    assert (boxes >= 0).all()
    assert boxes[1, :2].tolist() == [0, 0]


def test_whole_numbers_may_be_written_as_fractions(root: Path) -> None:
    shape = annotation(1, first_image(root)["id"], 3, (4, 4, 12, 12))
    only(root, "train", {**shape, "iscrowd": 0.0, "category_id": 3.0})
    data = opened(root, augment=PLAIN)
    assert [data.class_names[label] for label in data.train_images()[0]["target"]["labels"]] == ["bar"]


def test_images_are_evaluated_one_at_a_time_so_none_is_padded(root: Path) -> None:
    loader = opened(root, batch_size=4).val_dataloader()
    assert [len(batch["image"]) for batch in loader] == [1, 1, 1]


def test_an_image_that_becomes_another_one_after_the_check_is_refused(root: Path) -> None:
    data = opened(root)
    victim = root / "train" / first_image(root)["file_name"]
    Image.new("RGB", Image.open(victim).size).save(victim)
    with pytest.raises(UserError, match=f"^The image {victim} was replaced after the folder was scanned"):
        data.train_images()[0]


def test_the_long_side_cannot_be_less_than_the_short_one(root: Path) -> None:
    with pytest.raises(UserError, match="max_size=96"):
        opened(root, image_size=100)


def test_the_smallest_image_is_found_on_disk_and_resized(root: Path) -> None:
    assert opened(root, image_size=96).smallest_image() == (min(("train/train001.png", "val/val001.png")), 48)
    image = first_image(root)
    Image.new("RGB", (1000, 20)).save(root / "train" / image["file_name"])
    change(
        root,
        "train",
        images=[{**image, "height": 20, "width": 1000}],
        annotations=[annotation(1, image["id"], 3, (1, 1, 9, 9))],
    )
    assert opened(root, image_size=96).smallest_image() == (f"train/{image['file_name']}", 2)


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


def test_a_share_of_the_training_images_keeps_their_objects(root: Path) -> None:
    whole, half = opened(root), opened(root, label_share=0.5)
    assert len(half.train_samples) == 3
    ids, images = half.image_ids(half.train_samples), whole.split_images("train")
    assert images is not None
    rows = [whole.image_ids(whole.train_samples).index(number) for number in ids]
    for index, row in enumerate(rows):
        truth = half.eval_images(half.train_samples)[index]["truth"]
        assert truth["boxes"].tolist() == images[row]["truth"]["boxes"].tolist()


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
