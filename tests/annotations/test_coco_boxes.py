"""Boxes in other units or orders than COCO's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_splitmask.annotations import rle
from lit_splitmask.annotations.coco_boxes import check_boxes
from lit_splitmask.errors import UserError

FILE = Path("a.json")
WIDTH, HEIGHT = 200, 100


def polygon(left: float, top: float, width: float, height: float) -> list[list[float]]:
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def runs(left: int, top: int, width: int, height: int, *, compressed: bool = True) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + height, left : left + width] = True
    found = rle.as_json(rle.encode(torch.from_numpy(mask)[None])[0])
    return found if compressed else {**found, "counts": rle.run_lengths(found["counts"])}


def objects(count: int = 20) -> list[dict[str, Any]]:
    """Objects with boxes and polygons that fit."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        width, height = generator.integers(20, 60, 2).tolist()
        left, top = int(generator.integers(0, WIDTH - width)), int(generator.integers(0, HEIGHT - height))
        box = [left, top, width, height]
        found.append({"image_id": 1, "bbox": box, "segmentation": polygon(*box)})
    return found


def check(found: list[dict[str, Any]], *, masks: bool = True) -> str:
    images = [{"id": 1, "width": WIDTH, "height": HEIGHT}]
    return check_boxes(FILE, {"images": images, "annotations": found, "categories": []}, masks=masks)


def changed(found: list[dict[str, Any]], change: Callable[..., Sequence[float]]) -> list[dict[str, Any]]:
    return [{**one, "bbox": list(change(*one["bbox"]))} for one in found]


def boxes_alone(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "segmentation": []} for one in found]


def corners(left: float, top: float, width: float, height: float) -> Sequence[float]:
    return left, top, left + width, top + height


def test_boxes_that_fit_are_passed() -> None:
    assert check(objects()) == ""
    assert check(boxes_alone(objects())) == ""
    assert check([]) == ""
    of_runs = [{**one, "segmentation": runs(*one["bbox"], compressed=i % 2 == 0)} for i, one in enumerate(objects())]
    assert check(of_runs) == ""


@pytest.mark.parametrize("masks", [True, False])
def test_boxes_as_fractions_of_the_image_are_refused(masks: bool) -> None:
    shares = changed(objects(), lambda a, b, c, d: (a / WIDTH, b / HEIGHT, c / WIDTH, d / HEIGHT))
    with pytest.raises(UserError, match=r"All 20 boxes of a\.json are between 0 and .* fractions .* multiply them"):
        check(shares if masks else boxes_alone(shares), masks=masks)
    shares[0]["bbox"] = [float("nan"), 0.1, 0.1, 0.1]
    with pytest.raises(UserError, match="All 19 boxes"):
        check(shares)


READINGS: list[tuple[Callable[..., Sequence[float]], str]] = [
    (corners, "left, top, right, bottom.*subtract left from the third"),
    (lambda a, b, c, d: (a + c / 2, b + d / 2, c, d), "the centre, width, height.*subtract half the width"),
    (lambda a, b, c, d: (b, a, d, c), "top, left, height, width.*swap the first number"),
    (lambda a, b, c, d: (b, a, b + d, a + c), "top, left, bottom, right.*swap the first two"),
]


@pytest.mark.parametrize(("change", "meaning"), READINGS)
def test_boxes_that_fit_their_masks_only_in_another_reading_are_refused(
    change: Callable[..., Sequence[float]], meaning: str
) -> None:
    with pytest.raises(UserError, match=rf"of 20 boxes of a\.json do not fit their masks, but would as {meaning}"):
        check(changed(objects(), change))
    some = [*objects(36), *changed(objects(4), change)]
    with pytest.raises(UserError, match="of 40 boxes"):
        check(some, masks=False)


def test_corners_are_noticed_by_masks_of_run_lengths() -> None:
    of_runs = [{**one, "segmentation": runs(*one["bbox"])} for one in objects()]
    with pytest.raises(UserError, match="left, top, right, bottom"):
        check(changed(of_runs, corners))


def test_corners_are_noticed_without_masks_where_boxes_would_leave_their_images() -> None:
    with pytest.raises(UserError, match=r"reach beyond their images, but would be inside as left, top, right, bottom"):
        check(boxes_alone(changed(objects(), corners)))


def test_large_boxes_and_boxes_over_the_edge_are_passed() -> None:
    assert check(boxes_alone(changed(objects(), lambda *_: (0, 0, WIDTH, HEIGHT)))) == ""
    over = [*objects(20), {"image_id": 1, "bbox": [150, 60, 100, 90], "segmentation": []}]
    assert check(boxes_alone(over)) == ""


def test_boxes_that_fit_their_masks_in_no_reading_are_named() -> None:
    moved = changed(objects(), lambda a, b, c, d: (a + 35, b + 3, c + 30, d))
    line = check(moved)
    assert line.startswith("a.json: 20 of 20 boxes do not fit their masks, such as [")
    assert line.endswith(": check them.")
    assert check(moved, masks=False) == ""


def test_polygons_as_fractions_beside_boxes_in_pixels_are_refused() -> None:
    mixed = [{**one, "segmentation": [[v / 200 for v in one["segmentation"][0]]]} for one in objects()]
    with pytest.raises(UserError, match=r"All polygons of a\.json are between 0 and"):
        check(mixed)
    assert check(mixed, masks=False) == ""


def test_masks_that_cannot_be_used_and_crowds_are_not_compared() -> None:
    strange: list[Any] = [
        [[1, 2, "a", 4]],
        [[1, float("nan"), 3, 4, 5, 6]],
        {"size": None, "counts": [1]},
        {},
        None,
        [5, 6],
    ]
    strange += [{"size": [HEIGHT, WIDTH], "counts": [3, -3, HEIGHT * WIDTH]}, {"size": [1, 1], "counts": "P"}]
    found = [{**one, "segmentation": mask} for one, mask in zip(objects(len(strange)), strange, strict=True)]
    crowds = [{**one, "iscrowd": 1} for one in changed(objects(), corners)]
    assert check([*objects(), *found, *crowds]) == ""


def test_runs_that_go_on_in_the_next_column_reach_over_the_whole_height() -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[50:, 10], mask[:20, 11] = True, True
    segmentation = rle.as_json(rle.encode(torch.from_numpy(mask)[None])[0])
    assert check([{"image_id": 1, "bbox": [10, 0, 2, HEIGHT], "segmentation": segmentation}]) == ""
