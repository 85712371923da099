"""Tiny replicas of the ten datasets: six training and four test images each, in the official layouts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def imagenet(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for label, wnid in enumerate(("n01440764", "n01443537")):
            for number in range(count):
                draw(root / split / wnid / f"{wnid}_{split}_{number}.JPEG", 10 * label + number)


def inaturalist(root: Path, year: int = 2018) -> None:
    categories = [{"id": 40, "name": "b"}, {"id": 7, "name": "a"}]
    image_id = 0
    for split, count in (("train", 3), ("val", 2)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for category in (40, 7):
            for number in range(count):
                file = f"train_val{year}/Plantae/{category}/{split}{number}.jpg"
                draw(root / file, image_id)
                images.append({"id": image_id, "file_name": file})
                annotations.insert(0, {"id": image_id, "image_id": image_id, "category_id": category})  # any order
                image_id += 1
        stored = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}{year}.json").write_text(json.dumps(stored))


def food(root: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        files = {name: [f"{name}/{split}{number}" for number in range(count)] for name in ("pizza", "apple_pie")}
        (root / "food-101/meta").mkdir(parents=True, exist_ok=True)
        (root / f"food-101/meta/{split}.json").write_text(json.dumps(files))
        for file in (file for group in files.values() for file in group):
            draw(root / f"food-101/images/{file}.jpg", 0)


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(["Audi A5", "BMW M3"], dtype=object)[None]})
    fields = [("bbox_x1", "i4"), ("class", "i4"), ("fname", "O")]
    for split, count, path in (
        ("train", 6, "devkit/cars_train_annos.mat"),
        ("test", 4, "cars_test_annos_withlabels.mat"),
    ):
        entries = [(0, 1 + number % 2, f"{number:05d}.jpg") for number in range(count)]
        savemat(folder / path, {"annotations": np.array(entries, dtype=fields)[None]})
        for _, _, file in entries:
            draw(folder / f"cars_{split}" / file, 0)


def domain(root: Path, name: str, line_end: str = "\n") -> None:
    for split, count in (("train", 3), ("test", 2)):
        lines = []
        for label, group in enumerate(("aircraft carrier", "zebra")):
            for number in range(count):
                file = f"{name}/{group}/{split}_{number}.jpg"
                draw(root / file, number)
                lines.append(f"{file} {label}")
        (root / f"{name}_{split}.txt").write_bytes((line_end.join(lines) + line_end).encode())


def flat(root: Path, train: str, val: str) -> None:
    for folder, count in ((train, 6), (val, 4)):
        for number in range(count):
            draw(root / folder / f"{number}.jpg", number)


REPLICAS: dict[str, Callable[[Path], None]] = {
    "ImageNet": imagenet,
    "INaturalist2018": inaturalist,
    "INaturalist2019": lambda root: inaturalist(root, 2019),
    "Food101": food,
    "StanfordCars": cars,
    "Clipart": lambda root: domain(root, "clipart"),
    "Painting": lambda root: domain(root, "painting"),
    "Sketch": lambda root: domain(root, "sketch"),
    "ADE20K": lambda root: flat(root, "ADEChallengeData2016/images/training", "ADEChallengeData2016/images/validation"),
    "COCO": lambda root: flat(root, "train2017", "val2017"),
}
