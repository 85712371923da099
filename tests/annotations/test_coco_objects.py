"""The objects of an annotation file: which are left out, and how they are kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_splitmask.annotations.coco import Categories
from lit_splitmask.annotations.coco_objects import Annotations, CheckedFile, describe_faults
from lit_splitmask.errors import UserError

CATEGORIES = Categories([3, 5], ["bar", "roof"])
SIZE = {"height": 30, "width": 40}
GOOD: dict[str, Any] = {
    "image_id": 1,
    "category_id": 3,
    "bbox": [4, 4, 12, 12],
    "segmentation": [[4, 4, 16, 4, 16, 16, 4, 16]],
}
BAD_RUNS: list[Any] = [[3, 4], [], "abc", "", "P", [-1, 10**6], [1.5, 2], ["a", 3], "\x7f", "P" * 2**21]


def checked(*objects: dict[str, Any], masks: bool = True) -> CheckedFile:
    images = [{"id": number, "file_name": f"{number}.png", **SIZE} for number in (7, 1, 4)]
    stored = {"images": images, "annotations": list(objects), "categories": []}
    return CheckedFile(Path("a.json"), stored, CATEGORIES, masks=masks)


def test_objects_that_cannot_be_used_are_counted_in_one_line() -> None:
    bad = [
        {"bbox": [3, 3, 0, 5]},
        {"bbox": [3, 3, 5, -1]},
        {"bbox": [500, 3, 5, 5]},
        {"segmentation": [[1, 1, 5, 5]]},
        {"segmentation": []},
        {"segmentation": [[1, 1, 5, 5, 8, 8, 9]]},
        {"segmentation": None},
        {"segmentation": [1, 1, 5, 5, 8, 8]},
        {"segmentation": [[1, 1, 5, None, 8, 8]]},
        {"segmentation": {"size": None, "counts": [1]}},
        {"segmentation": {"size": [1, 1], "counts": [1]}},
        {"bbox": [float("nan"), 3, 5, 5]},
        {"bbox": [3, 3, float("inf"), 5]},
        {"segmentation": [[1, 1, 5, float("nan"), 8, 8]]},
        {"segmentation": [[1, 1, 5, 1e9, 8, 8]]},
        *({"segmentation": {"size": [30, 40], "counts": counts}} for counts in BAD_RUNS),
    ]
    found = checked(GOOD, *({**GOOD, **fault} for fault in bad))
    line = describe_faults(found, masks=True)
    for text in (
        "3 with boxes without area",
        "2 with polygons far outside",
        f"{len(BAD_RUNS)} with run lengths that do not fill",
        "2 with boxes outside",
        "4 with polygons of fewer than 3",
        "2 with run lengths of a different size",
        "2 with a box but no mask",
        "--data.masks=false",
    ):
        assert text in line
    assert Annotations(found, masks=True).num_objects.tolist() == [1, 0, 0]
    boxes = describe_faults(found, masks=False)
    assert boxes == "a.json: objects are left out: 3 with boxes without area, 2 with boxes outside their images."
    assert Annotations(found, masks=False).num_objects.tolist() == [len(bad) - 4, 0, 0]
    assert describe_faults(checked(GOOD), masks=True) == ""
    assert describe_faults(checked({**GOOD, "segmentation": None}, masks=False), masks=False) == ""


def test_objects_are_kept_by_image_in_the_order_of_the_ids() -> None:
    crowd = {**GOOD, "image_id": 7, "iscrowd": 1, "area": 5}
    other = {**GOOD, "image_id": 7, "category_id": 5, "bbox": [1, 2, 3.5, 4]}
    found = Annotations(checked(other, crowd, GOOD), masks=False)
    assert len(found) == 3
    assert found.image_ids.tolist() == [1, 4, 7]
    assert found.sizes.tolist() == [[30, 40]] * 3
    assert (found.num_objects.tolist(), found.num_crowds.tolist()) == ([1, 0, 1], [0, 0, 1])
    assert found.objects(1) == []
    assert found.objects(2) == [
        {"label": 1, "bbox": [1, 2, 3.5, 4], "iscrowd": 0, "area": 14},
        {"label": 0, "bbox": [4, 4, 12, 12], "iscrowd": 1, "area": 5},
    ]
    assert Annotations(checked(GOOD), masks=True).objects(0)[0]["segmentation"] == GOOD["segmentation"]


def test_objects_are_counted_by_class() -> None:
    of_7 = {**GOOD, "image_id": 7, "category_id": 5}
    file = checked(
        GOOD, GOOD, of_7, {**of_7, "segmentation": []}, {**of_7, "iscrowd": 1}, {**GOOD, "bbox": [0, 0, 0, 0]}
    )
    found = Annotations(file, masks=True)
    assert found.num_by_class(2, np.array([0, 1, 2])).tolist() == [2, 1]
    assert found.num_by_class(2, np.array([2])).tolist() == [0, 1]
    assert found.num_by_class(2, np.array([], dtype=np.int64)).tolist() == [0, 0]
    assert file.num_listed.tolist() == [3, 3]
    every, masked = file.masked_by_class(2)
    assert (every.tolist(), masked.tolist()) == ([2, 2], [2, 1])


def test_labels_can_be_those_of_a_network() -> None:
    found = Annotations(checked(GOOD), masks=False)
    found.relabel([6, 2])
    assert found.objects(0)[0]["label"] == 6
    found.relabel(None)
    assert found.objects(0)[0]["label"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 2}, "annotation of image 2, which is not among"),
        ({"category_id": 4}, "of category 4, which is not"),
    ],
)
def test_objects_of_unknown_images_or_categories_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked({**GOOD, **change})
