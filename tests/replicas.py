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


# Other forms in which the datasets are to be had


def _inside(write: Callable[[Path], Labels], folder: str) -> Callable[[Path], Labels]:
    """A replica one or more folders below the root."""
    return lambda root: {f"{folder}/{file}": name for file, name in write(root / folder).items()}


def _double(root: Path, folder: str, labels: Labels) -> Labels:
    """Moves a folder into one of its own name, as some archives have it."""
    (root / folder).rename(root / "moved")
    (root / folder).mkdir()
    (root / "moved").rename(root / folder / Path(folder).name)
    return {
        f"{folder}/{Path(folder).name}/{file.removeprefix(f'{folder}/')}"
        if file.startswith(f"{folder}/")
        else file: name
        for file, name in labels.items()
    }


def cars_of_kaggle(root: Path) -> Labels:
    """Nested folders; all lists in ``car_devkit/devkit/``."""
    labels = {file.removeprefix("stanford_cars/"): name for file, name in cars(root).items()}
    for path in list((root / "stanford_cars").iterdir()):
        path.rename(root / path.name)
    (root / "stanford_cars").rmdir()
    (root / "car_devkit").mkdir()
    (root / "devkit").rename(root / "car_devkit/devkit")
    (root / "cars_test_annos_withlabels.mat").rename(root / "car_devkit/devkit/cars_test_annos_withlabels.mat")
    return _double(root, "cars_test", _double(root, "cars_train", labels))


def cars_in_one_list(root: Path, folders: bool = False) -> Labels:
    """``cars_annos.mat`` with ``car_ims/``, or with nested folders of images of the same names."""
    names = ["Audi A5", "BMW M3"]
    entries, labels = [], {}
    for number in range(10):
        is_test, label = number in (2, 3, 6, 9), number % 2
        file = f"{number + 1:06d}.jpg"
        entries.append((f"car_ims/{file}", label + 1, int(is_test)))
        split = "cars_test" if is_test else "cars_train"
        path = f"{split}/{split}/{file}" if folders else f"car_ims/{file}"
        draw(root / path, number)
        labels[path] = names[label]
    fields = [("relative_im_path", "O"), ("class", "i4"), ("test", "u1")]
    stored = {"annotations": np.array(entries, dtype=fields)[None], "class_names": np.array(names, dtype=object)[None]}
    savemat(root / "cars_annos.mat", stored)
    return labels


def class_folders(root: Path, folder: str = "car_data/car_data/") -> Labels:
    """Folders of the classes in train and test."""
    labels = {}
    for split, count in (("train", 3), ("test", 2)):
        for name in ("Audi A5", "BMW M3"):
            for number in range(count):
                file = f"{folder}{split}/{name}/{number:05d}.jpg"
                draw(root / file, number)
                labels[file] = name
    return labels


def _flat_val(root: Path, folder: str) -> tuple[Labels, dict[str, str]]:
    """ImageNet with the validation images beside each other; also their classes by name."""
    labels, classes = {}, {}
    number = 0
    for file, wnid in imagenet(root / folder).items():
        if file.startswith("train/"):
            labels[f"{folder}/{file}"] = wnid
            continue
        number += 1
        name = f"ILSVRC2012_val_{number:08d}"
        (root / folder / file).rename(root / folder / f"val/{name}.JPEG")
        labels[f"{folder}/val/{name}.JPEG"] = classes[name] = wnid
    for wnid in set(classes.values()):
        (root / folder / "val" / wnid).rmdir()
    return labels, classes


def imagenet_of_kaggle(root: Path) -> Labels:
    """``ILSVRC/Data/CLS-LOC/`` with boxes in folders of the same names beside it, and ``LOC_val_solution.csv``."""
    labels, classes = _flat_val(root, "ILSVRC/Data/CLS-LOC")
    draw(root / "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG", 0)
    (root / "ILSVRC/Annotations/CLS-LOC/train/n01440764").mkdir(parents=True)
    lines = [f"{name},{wnid} 1 1 9 9 {wnid} 2 2 8 8 " for name, wnid in classes.items()]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(lines)]))
    return labels


def imagenet_with_devkit(root: Path) -> Labels:
    """A flat ``val/`` and the development kit, whose numbers of the classes are not in the order of their names."""
    labels, classes = _flat_val(root, "imagenet")
    wnids = ["n01443537", "n01440764"]
    kit = root / "ILSVRC2012_devkit_t12/data"
    kit.mkdir(parents=True)
    synsets = np.array(list(enumerate(wnids, start=1)), dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O")])
    savemat(kit / "meta.mat", {"synsets": synsets[:, None]})
    numbers = [wnids.index(classes[name]) + 1 for name in sorted(classes)]
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in numbers))
    return labels


def food_of_kaggle(root: Path) -> Labels:
    """``images/`` and ``meta/meta/``."""
    labels = {file.removeprefix("food-101/"): name for file, name in food(root).items()}
    for path in list((root / "food-101").iterdir()):
        path.rename(root / path.name)
    (root / "food-101").rmdir()
    return _double(root, "meta", labels)


FORMS: dict[tuple[str, str], Callable[[Path], Labels]] = {
    ("StanfordCars", "Kaggle's folders"): cars_of_kaggle,
    ("StanfordCars", "in an archive's folder"): _inside(cars_of_kaggle, "archive"),
    ("StanfordCars", "one list"): cars_in_one_list,
    ("StanfordCars", "one list, folders"): lambda root: cars_in_one_list(root, folders=True),
    ("StanfordCars", "class folders"): class_folders,
    ("StanfordCars", "class folders at the top"): lambda root: class_folders(root, ""),
    ("ImageNet", "Kaggle's folders"): imagenet_of_kaggle,
    ("ImageNet", "Kaggle's folders in one more"): _inside(imagenet_of_kaggle, "imagenet-object-localization-challenge"),
    ("ImageNet", "development kit"): imagenet_with_devkit,
    ("ImageNet", "one folder deeper"): _inside(imagenet, "imagenet"),
    ("Food101", "one folder deeper"): _inside(food, "food-101"),
    ("Food101", "meta in meta"): food_of_kaggle,
    ("INaturalist2018", "one folder deeper"): _inside(inaturalist, "inat"),
    ("INaturalist2018", "images one folder deeper"): lambda root: _double(root, "train_val2018", inaturalist(root)),
    ("Clipart", "one folder deeper"): _inside(lambda root: domain(root, "clipart"), "domainnet"),
    ("Clipart", "images one folder deeper"): lambda root: _double(root, "clipart", domain(root, "clipart")),
    ("COCO", "one folder deeper"): _inside(lambda root: unlabelled(root, "train2017", "val2017"), "coco"),
}
"""By the class of the datamodule and a description: writes a replica in another form, and returns the labels of its images."""
