"""Tiny replicas of the published datasets, in their official layouts: six training and four test images of two classes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

Labels = dict[str, str]
"""Class name by image, relative to the root; empty without labels."""


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def imagenet(root: Path) -> Labels:
    labels = {}
    for split, count in (("train", 3), ("val", 2)):
        for label, wnid in enumerate(("n01440764", "n01443537")):
            for number in range(count):
                file = f"{split}/{wnid}/{wnid}_{split}_{number}.JPEG"
                draw(root / file, 10 * label + number)
                labels[file] = wnid
    return labels


def inaturalist(root: Path, year: int = 2018) -> Labels:
    categories = [{"id": 40, "name": "b"}, {"id": 7, "name": "a"}]
    labels: Labels = {}
    for split, count in (("train", 3), ("val", 2)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for category in categories:
            for number in range(count):
                image_id = len(labels)
                file = f"train_val{year}/Plantae/{category['id']}/{split}{number}.jpg"
                draw(root / file, image_id)
                labels[file] = str(category["name"])
                images.append({"id": image_id, "file_name": file})
                annotation = {"id": image_id, "image_id": image_id, "category_id": category["id"]}
                annotations.insert(0, annotation)  # in another order than the images
        stored = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}{year}.json").write_text(json.dumps(stored))
    return labels


def food(root: Path) -> Labels:
    labels = {}
    for split, count in (("train", 3), ("test", 2)):
        files = {name: [f"{name}/{split}{number}" for number in range(count)] for name in ("pizza", "apple_pie")}
        (root / "food-101/meta").mkdir(parents=True, exist_ok=True)
        (root / f"food-101/meta/{split}.json").write_text(json.dumps(files))
        for name, group in files.items():
            for file in group:
                draw(root / f"food-101/images/{file}.jpg", 0)
                labels[f"food-101/images/{file}.jpg"] = name
    return labels


def cars(root: Path) -> Labels:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = ["Audi A5", "BMW M3"]
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(names, dtype=object)[None]})
    fields = [("bbox_x1", "i4"), ("class", "i4"), ("fname", "O")]
    labels = {}
    for split, count, path in (
        ("train", 6, "devkit/cars_train_annos.mat"),
        ("test", 4, "cars_test_annos_withlabels.mat"),
    ):
        entries = [(0, 1 + number % 2, f"{number:05d}.jpg") for number in range(count)]
        savemat(folder / path, {"annotations": np.array(entries, dtype=fields)[None]})
        for _, number, file in entries:
            draw(folder / f"cars_{split}" / file, 0)
            labels[f"stanford_cars/cars_{split}/{file}"] = names[number - 1]
    return labels


def domain(root: Path, name: str, line_end: str = "\n") -> Labels:
    labels = {}
    for split, count in (("train", 3), ("test", 2)):
        lines = []
        for label, group in enumerate(("aircraft carrier", "zebra")):
            for number in range(count):
                file = f"{name}/{group}/{split}_{number}.jpg"
                draw(root / file, number)
                labels[file] = group
                lines.append(f"{file} {label}")
        (root / f"{name}_{split}.txt").write_bytes((line_end.join(lines) + line_end).encode())
    return labels


def unlabelled(root: Path, train: str, val: str) -> Labels:
    for folder, count in ((train, 6), (val, 4)):
        for number in range(count):
            draw(root / folder / f"{number}.jpg", number)
    return {}


REPLICAS: dict[str, Callable[[Path], Labels]] = {
    "ImageNet": imagenet,
    "INaturalist2018": inaturalist,
    "INaturalist2019": lambda root: inaturalist(root, 2019),
    "Food101": food,
    "StanfordCars": cars,
    "Clipart": lambda root: domain(root, "clipart"),
    "Painting": lambda root: domain(root, "painting"),
    "Sketch": lambda root: domain(root, "sketch"),
    "ADE20K": lambda root: unlabelled(
        root, "ADEChallengeData2016/images/training", "ADEChallengeData2016/images/validation"
    ),
    "COCO": lambda root: unlabelled(root, "train2017", "val2017"),
}
"""By the class of the datamodule: writes the replica into a folder, and returns the labels of its images."""
