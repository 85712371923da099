"""Tiny generated folders in COCO's format, and the slow evaluation by pycocotools itself."""

import contextlib
import io
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lit_splitmask.datamodules import Budget, CocoDetection, DetectionAugment

CATEGORIES = [{"id": 0, "name": "disc"}, {"id": 3, "name": "bar"}, {"id": 90, "name": "roof"}]
"""Ids start at 0 and have gaps."""

PLAIN = DetectionAugment(hflip=0.0, crop=0.0, min_scale=1.0, num_scales=1)
"""Views without chance."""

COLOURS = {0: (220, 60, 50), 3: (60, 170, 80), 90: (60, 90, 210)}


def outline(category: int, left: float, top: float, width: float, height: float) -> list[float]:
    """The polygon of a category's shape in a box: x, y, x, y, …."""
    if category == 0:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        points = 0.5 + 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif category == 3:
        points = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    else:
        points = np.array([[0.5, 0], [1, 0.6], [1, 1], [0, 1], [0, 0.6]], dtype=float)
    return (points * [width, height] + [left, top]).round(2).ravel().tolist()


def annotation(number: int, image: int, category: int, box: tuple[float, float, float, float]) -> dict[str, Any]:
    polygon = outline(category, *box)
    xs, ys = np.array(polygon[::2]), np.array(polygon[1::2])
    area = 0.5 * abs(float(np.dot(xs, np.roll(ys, 1)) - np.dot(ys, np.roll(xs, 1))))
    bbox = [float(xs.min()), float(ys.min()), float(np.ptp(xs)), float(np.ptp(ys))]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "area": area,
        "iscrowd": 0,
        "segmentation": [polygon],
    }


def draw_image(
    seed: int, size: tuple[int, int], boxes: list[tuple[int, tuple[float, float, float, float]]]
) -> Image.Image:
    noise = np.random.default_rng(seed).integers(60, 110, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for category, box in boxes:
        polygon = outline(category, *box)
        ImageDraw.Draw(image).polygon(list(zip(polygon[::2], polygon[1::2], strict=True)), fill=COLOURS[category])
    return image


def random_objects(
    generator: np.random.Generator, size: tuple[int, int], number: int
) -> list[tuple[int, tuple[float, float, float, float]]]:
    """Shapes in different quarters of an image, so none covers another."""
    height, width = size[0] // 2, size[1] // 2
    found = []
    for quarter in generator.permutation(4)[:number]:
        w, h = (float(generator.uniform(0.45, 0.85) * side) for side in (width, height))
        left = float(quarter % 2 * width + generator.uniform(0, width - w))
        top = float(quarter // 2 * height + generator.uniform(0, height - h))
        found.append((int(generator.choice([0, 3, 90])), (left, top, w, h)))
    return found


def write_set(
    root: Path,
    *,
    train: int = 6,
    val: int = 3,
    objects: int = 3,
    sizes: tuple[tuple[int, int], ...] = ((64, 64), (48, 80), (80, 56)),
    year: str = "",
) -> Path:
    """Writes a folder with the given number of images per split; image ids are in another order than the images."""
    for split, count in (("train", train), ("val", val)):
        generator = np.random.default_rng([len(split), 1])
        (root / (split + year)).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            size = sizes[number % len(sizes)]
            shapes = random_objects(generator, size, objects)
            name, image_id = f"{split}{number:03d}.png", 1000 - 7 * number
            draw_image(number, size, shapes).save(root / (split + year) / name)
            images.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
            for category, box in shapes:
                annotations.append(annotation(len(annotations) + 1, image_id, category, box))
        save(root, split + year, {"images": images, "annotations": annotations, "categories": CATEGORIES})
    return root


def save(root: Path, split: str, stored: Any) -> None:
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored))


def load(root: Path, split: str = "train") -> dict[str, Any]:
    return dict(json.loads((root / "annotations" / f"instances_{split}.json").read_text()))


def change(root: Path, split: str, **parts: Any) -> None:
    """Replaces parts of the annotation file of a split."""
    save(root, split, {**load(root, split), **parts})


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


def rename(root: Path, split: str, pattern: str) -> None:
    """Rewrites the names of the images in an annotation file: ``{}`` stands for the name before."""
    images = [{**one, "file_name": pattern.format(one["file_name"])} for one in load(root, split)["images"]]
    change(root, split, images=images)


def as_roboflow(root: Path) -> Path:
    """Moves a set's annotation files to where Roboflow writes them, and val to ``valid``."""
    (root / "val").rename(root / "valid")
    for split, folder in (("train", "train"), ("val", "valid")):
        file = root / "annotations" / f"instances_{split}.json"
        file.rename(root / folder / "_annotations.coco.json")
    (root / "annotations").rmdir()
    return root


def as_cvat(root: Path) -> Path:
    """Turns a set's training images into an export of CVAT, without a val split."""
    (root / "images").mkdir()
    (root / "train").rename(root / "images" / "default")
    folder = root / "annotations"
    (folder / "instances_train.json").rename(folder / "instances_default.json")
    (folder / "instances_val.json").unlink()
    shutil.rmtree(root / "val")
    return root


def coco_data(root: Path, **settings: Any) -> CocoDetection:
    """A datamodule for small images."""
    values: dict[str, Any] = {"batch_size": 2, "num_workers": 0, "budget": Budget(steps=4), "num_epochs": 1}
    values |= {"max_size": 96, "index_dir": str(root.parent / "index")}
    return CocoDetection(str(root), settings.pop("image_size", 64), **(values | settings))


def opened(root: Path, stage: str = "fit", **settings: Any) -> CocoDetection:
    """A datamodule for small images, set up."""
    data = coco_data(root, **settings)
    if stage != "predict":
        data.prepare_data()
    data.setup(stage)
    return data


def warnings_in(records: list[logging.LogRecord]) -> list[str]:
    """The messages of warnings, in order."""
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


def evaluate(annotations: Path, results: Path | list[dict[str, Any]], kind: str) -> list[float]:
    """The twelve numbers of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        truth.dataset.setdefault("info", {})
        found = truth.loadRes(results if isinstance(results, list) else str(results))
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]
