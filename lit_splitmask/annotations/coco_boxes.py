"""Checks that the boxes of a COCO annotation file are left, top, width and height in pixels."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.annotations import rle
from lit_splitmask.annotations.coco import Stored
from lit_splitmask.errors import UserError

NORMALISED_UP_TO = 1.5
"""If no box reaches beyond this, in pixels, they are fractions of the image's sides."""

MOST_DISAGREEING = 0.05
"""Fraction of the boxes that may fit their masks only if they are read in another way."""

MOST_OUTSIDE = 0.1
"""Fraction of the boxes without masks that may reach beyond their images, if nearly all of them would be inside as corners."""

NEARLY_ALL = 0.99

_MOST_COMPARED = 5_000  # boxes of a file
_TOLERANCE = 2.0  # pixels
_MOST_SIDE = 2**31
_WAY = "COCO's are left, top, width, height: "

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_OTHER_READINGS: dict[str, tuple[Callable[[Sequence[float]], Corners], str]] = {
    "left, top, right, bottom": (
        lambda box: (box[0], box[1], box[2], box[3]),
        "subtract left from the third number and top from the fourth",
    ),
    "the centre, width, height": (
        lambda box: (box[0] - box[2] / 2, box[1] - box[3] / 2, box[0] + box[2] / 2, box[1] + box[3] / 2),
        "subtract half the width from the first number and half the height from the second",
    ),
    "top, left, height, width": (
        lambda box: (box[1], box[0], box[1] + box[3], box[0] + box[2]),
        "swap the first number with the second and the third with the fourth",
    ),
    "top, left, bottom, right": (
        lambda box: (box[1], box[0], box[3], box[2]),
        "swap the first two numbers, and give width and height",
    ),
}


def check_boxes(path: Path, stored: Stored, *, masks: bool = True) -> str:
    """Checks that the boxes are left, top, width and height in pixels.

    Args:
        path: The file, for messages.
        stored: Its content.
        masks: Whether masks may be trained; if not, their own faults do not matter.

    Returns:
        A line about boxes that do not fit their masks in any reading; empty if most fit.

    Raises:
        UserError: They are fractions of the image, corners, or in another order.
    """
    objects = stored["annotations"]
    boxes = np.array([entry["bbox"] for entry in objects], dtype=np.float64).reshape(-1, 4)
    is_finite = np.isfinite(boxes).all(axis=1)
    if not is_finite.any() or not stored["images"]:
        return ""
    _check_pixels(path, boxes[is_finite], stored)
    singles = [objects[index] for index in np.flatnonzero(is_finite).tolist() if not objects[index].get("iscrowd")]
    step = max(1, len(singles) // _MOST_COMPARED)
    outlined = [(entry["bbox"], outline) for entry in singles[::step] if (outline := _outline(entry)) is not None]
    if len(outlined) * step < MOST_OUTSIDE * len(singles):  # boxes alone
        _check_inside(path, singles, stored)
        return ""
    return _check_outlines(path, outlined, masks=masks)


def _check_pixels(path: Path, boxes: np.ndarray, stored: Stored) -> None:
    """Raises an error if all boxes are fractions of their images."""
    largest = max(max(image["width"], image["height"]) for image in stored["images"])
    end = float(np.abs(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])).max())
    if largest > 2 * NORMALISED_UP_TO and end <= NORMALISED_UP_TO:
        raise UserError(
            f"All {len(boxes):,} boxes of {path} are between 0 and {end:g}, so they are fractions of the images' sides, but "
            "COCO's are pixels (left, top, width, height): multiply them by the width and height of their images."
        )


def _check_outlines(path: Path, outlined: Sequence[tuple[Sequence[float], Corners]], *, masks: bool) -> str:
    """Compares boxes with the bounding boxes of their masks."""
    wrong = [(box, outline) for box, outline in outlined if not _close(_corners(box), outline)]
    for meaning, (corners, way) in _OTHER_READINGS.items():
        fitting = [box for box, outline in wrong if _close(corners(box), outline)]
        if len(fitting) > MOST_DISAGREEING * len(outlined):
            raise UserError(
                f"{len(fitting):,} of {len(outlined):,} boxes of {path} do not fit their masks, but would as {meaning}, such as "
                f"{list(fitting[0])}. {_WAY}{way}."
            )
    if not masks or len(wrong) <= MOST_DISAGREEING * len(outlined):
        return ""
    ends = max(max(map(abs, outline)) for _, outline in outlined)
    if ends <= NORMALISED_UP_TO:
        raise UserError(
            f"All polygons of {path} are between 0 and {ends:g}, so they are fractions of the images' sides, but its boxes are "
            "pixels: multiply the polygons by the width and height of their images."
        )
    box, (left, top, right, bottom) = wrong[0]
    return (
        f"{path}: {len(wrong):,} of {len(outlined):,} boxes do not fit their masks, such as {list(box)}, whose mask reaches from "
        f"({left:g}, {top:g}) to ({right:g}, {bottom:g}): check them."
    )


def _check_inside(path: Path, objects: Sequence[Mapping[str, Any]], stored: Stored) -> None:
    """Raises an error if boxes without masks reach beyond their images, while all would be inside as corners."""
    size_of = {image["id"]: (image["width"], image["height"]) for image in stored["images"]}
    known = [entry for entry in objects if entry["image_id"] in size_of]
    if not known:
        return
    boxes = np.array([entry["bbox"] for entry in known], dtype=np.float64)
    sides = np.array([size_of[entry["image_id"]] for entry in known], dtype=np.float64)
    start, extent, limit = boxes[:, :2], boxes[:, 2:], sides + _TOLERANCE
    reaches_out = (start + extent > 1.02 * limit).any(axis=1)
    fits_as_corners = ((extent > start) & (extent <= limit)).all(axis=1)
    if fits_as_corners.mean() >= NEARLY_ALL and reaches_out.mean() > MOST_OUTSIDE:
        index = int(reaches_out.argmax())
        raise UserError(
            f"{int(reaches_out.sum()):,} of {len(known):,} boxes of {path} reach beyond their images, but would be inside as "
            f"left, top, right, bottom, such as {known[index]['bbox']} in an image of {sides[index, 0]:.0f} × "
            f"{sides[index, 1]:.0f} px. {_WAY}{_OTHER_READINGS['left, top, right, bottom'][1]}."
        )


def _outline(entry: Mapping[str, Any]) -> Corners | None:
    """The bounding box of an object's mask; None without a mask, or with one that cannot be used."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict):
        return _outline_of_runs(segmentation)
    if not isinstance(segmentation, list):
        return None
    numbers = [value for one in segmentation if isinstance(one, list) and len(one) % 2 == 0 for value in one]
    if not numbers or not all(isinstance(value, int | float) for value in numbers):
        return None
    xs, ys = numbers[0::2], numbers[1::2]
    corners = (min(xs), min(ys), max(xs), max(ys))
    return corners if all(abs(value) < 2**31 for value in corners) else None  # False for nan


def _outline_of_runs(segmentation: Mapping[str, Any]) -> Corners | None:
    try:
        height, width = segmentation["size"]
        if not all(isinstance(side, int) and 0 < side < _MOST_SIDE for side in (height, width)):
            return None
        counts = segmentation["counts"]
        runs = rle.run_lengths(counts) if isinstance(counts, str) else counts
        if sum(runs) != height * width or min(runs) < 0:
            return None
    except (KeyError, TypeError, ValueError):
        return None
    ends = np.cumsum(runs)
    starts, stops = ends[0:-1:2], ends[1::2]  # of the runs of ones, column by column
    starts, stops = starts[stops > starts], stops[stops > starts]
    if not len(starts):
        return None
    left, right = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    crosses = (
        stops - 1
    ) // height > starts // height  # a run that fills the end of one column and the start of the next
    top = 0 if crosses.any() else int((starts % height).min())
    bottom = height if crosses.any() else int(((stops - 1) % height).max()) + 1
    return float(left), float(top), float(right), float(bottom)


def _corners(box: Sequence[float]) -> Corners:
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


def _close(one: Corners, other: Corners) -> bool:
    """Whether two boxes are the same within a tenth of their size, or two pixels."""
    allowed = _TOLERANCE + 0.1 * max(other[2] - other[0], other[3] - other[1])
    return all(abs(a - b) <= allowed for a, b in zip(one, other, strict=True))
