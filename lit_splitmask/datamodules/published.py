"""The paper's ten datasets (Table 3), each in its official layout on disk."""

import json
from pathlib import Path
from typing import Any

from lit_splitmask.datamodules.listed_data import ListedData, Listing
from lit_splitmask.datamodules.paper import FACTS
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines
from lit_splitmask.images.layout import list_images


class ImageNet(ListedData):
    """ImageNet (ILSVRC 2012): ``train/<wnid>/`` and ``val/<wnid>/``.

    ``subset_list`` takes the published lists of 1 % and 10 % (github.com/google-research/simclr, ``imagenet_subsets/``);
    ``label_share`` draws any other share, balanced and nested, down to one image a class (Figure 2).
    """

    facts = FACTS["imagenet"]

    def listing(self) -> Listing:
        self.require("train", "val")
        train, test = (_by_class_folder(self.root, split) for split in ("train", "val"))
        names = sorted(set(train.values()))
        unknown = sorted(set(test.values()) - set(names))
        if unknown:
            raise UserError(
                f"{self.root / 'val'} holds the class {unknown[0]}, which train lacks: sort the validation images into one "
                f"folder a class. {self.facts.where}"
            )
        number = {name: label for label, name in enumerate(names)}
        return Listing(
            {file: number[name] for file, name in train.items()},
            {file: number[name] for file, name in test.items()},
            names,
        )


class _INaturalist(ListedData):
    """iNaturalist, split by its JSON files (torchvision's loader mixes training and validation images)."""

    year: int

    def listing(self) -> Listing:
        lists = [_read_json(path) for path in self.require(f"train{self.year}.json", f"val{self.year}.json")]
        try:
            names = {category["id"]: str(category["name"]) for category in lists[0]["categories"]}
            number = {category: label for label, category in enumerate(sorted(names))}
            train, test = (_inaturalist(found, number) for found in lists)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"train{self.year}.json and val{self.year}.json in {self.root} do not fit together or are damaged: the entry "
                f"{error} is missing. {self.facts.where}"
            ) from error
        return Listing(train, test, [names[category] for category in sorted(names)])


class INaturalist2018(_INaturalist):
    """iNaturalist 2018: ``train_val2018/<group>/<category>/``, ``train2018.json``, ``val2018.json``."""

    facts = FACTS["inat2018"]
    year = 2018


class INaturalist2019(_INaturalist):
    """iNaturalist 2019: ``train_val2019/<group>/<category>/``, ``train2019.json``, ``val2019.json``."""

    facts = FACTS["inat2019"]
    year = 2019


class Food101(ListedData):
    """Food-101: ``images/<class>/``, ``meta/train.json``, ``meta/test.json``; in ``root`` or in ``root/food-101``."""

    facts = FACTS["food101"]

    def fetch(self) -> None:
        """Fetches the archive through torchvision, and unpacks it."""
        from torchvision.datasets import Food101 as Torchvisions

        try:
            Torchvisions(str(self.root), download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(f"Food-101 could not be downloaded ({error}). {self.facts.where}") from error

    def listing(self) -> Listing:
        inside = "food-101/" if (self.root / "food-101").is_dir() else ""
        train, test = (_read_json(path) for path in self.require(f"{inside}meta/train.json", f"{inside}meta/test.json"))
        names = sorted(train)
        if names != sorted(test):
            raise UserError(
                f"meta/train.json and meta/test.json in {self.root} name different classes: unpack them again."
            )
        labels = [
            {f"{inside}images/{file}.jpg": label for label, name in enumerate(names) for file in split[name]}
            for split in (train, test)
        ]
        return Listing(labels[0], labels[1], names)


class StanfordCars(ListedData):
    """Stanford Cars: ``cars_train/``, ``cars_test/``, MATLAB files; in ``root`` or in ``root/stanford_cars``."""

    facts = FACTS["cars"]

    def listing(self) -> Listing:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError

        inside = "stanford_cars/" if (self.root / "stanford_cars").is_dir() else ""
        paths = self.require(
            f"{inside}devkit/cars_meta.mat",
            f"{inside}devkit/cars_train_annos.mat",
            f"{inside}cars_test_annos_withlabels.mat",
        )
        try:
            meta, *annotations = (loadmat(str(path), squeeze_me=True) for path in paths)
            names = [str(name) for name in meta["class_names"]]
            train, test = (
                {
                    f"{inside}{folder}/{entry['fname']}": int(entry["class"]) - 1
                    for entry in found["annotations"].ravel()
                }
                for folder, found in zip(("cars_train", "cars_test"), annotations, strict=True)
            )
        except (KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
            raise UserError(f"The MATLAB files in {self.root} are damaged ({error}). {self.facts.where}") from error
        _check_labels(train | test, len(names), self.root)
        return Listing(train, test, names)


class _DomainNet(ListedData):
    """One domain of DomainNet: ``<domain>/<class>/``, ``<domain>_train.txt``, ``<domain>_test.txt``.

    The lists decide the release: the paper used the original ones; with the cleaned ones, a warning says so.
    """

    domain: str

    def listing(self) -> Listing:
        lists = self.require(f"{self.domain}_train.txt", f"{self.domain}_test.txt")
        train, test = (_read_labelled(path) for path in lists)
        names: dict[int, str] = {}
        for file, label in (train | test).items():
            if names.setdefault(label, Path(file).parent.name) != Path(file).parent.name:
                raise UserError(
                    f"The lists of {self.domain} in {self.root} give the label {label} to images of two classes, "
                    f"{names[label]} and {Path(file).parent.name}: take both lists from one release."
                )
        # painting's training list lacks a class, so labels may have gaps; they keep their numbers
        _check_labels(train | test, self.facts.classes, self.root)
        return Listing(train, test, [names.get(label, f"class {label}") for label in range(max(names, default=-1) + 1)])


class Clipart(_DomainNet):
    """DomainNet's clipart: ``clipart/<class>/``, ``clipart_train.txt``, ``clipart_test.txt``."""

    facts = FACTS["clipart"]
    domain = "clipart"


class Painting(_DomainNet):
    """DomainNet's paintings: ``painting/<class>/``, ``painting_train.txt``, ``painting_test.txt``."""

    facts = FACTS["painting"]
    domain = "painting"


class Sketch(_DomainNet):
    """DomainNet's sketches: ``sketch/<class>/``, ``sketch_train.txt``, ``sketch_test.txt``."""

    facts = FACTS["sketch"]
    domain = "sketch"


class ADE20K(ListedData):
    """ADE20K's images, for pre-training: ``images/training/``, ``images/validation/``; also in ``ADEChallengeData2016/``."""

    facts = FACTS["ade20k"]

    def listing(self) -> Listing:
        inside = "ADEChallengeData2016/" if (self.root / "ADEChallengeData2016").is_dir() else ""
        return _without_labels(self, f"{inside}images/training", f"{inside}images/validation")


class COCO(ListedData):
    """COCO 2017's images, for pre-training: ``train2017/``, ``val2017/``."""

    facts = FACTS["coco"]

    def listing(self) -> Listing:
        return _without_labels(self, "train2017", "val2017")


def _without_labels(data: ListedData, train: str, test: str) -> Listing:
    data.require(train, test)
    labels = [dict.fromkeys((f"{part}/{file}" for file in list_images(data.root / part)), -1) for part in (train, test)]
    return Listing(labels[0], labels[1], [])


def _by_class_folder(root: Path, split: str) -> dict[str, str]:
    """Class by file, for ``<split>/<class>/<file>``."""
    files = list_images(root / split)
    loose = next((file for file in files if "/" not in file), None)
    if loose is not None:
        raise UserError(
            f"{root / split / loose} lies outside the class folders: sort the images into one folder a class."
        )
    return {f"{split}/{file}": file.split("/")[0] for file in files}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): unpack it again.") from error


def _inaturalist(found: Any, number: dict[int, int]) -> dict[str, int]:
    labels = {entry["image_id"]: number[entry["category_id"]] for entry in found["annotations"]}
    return {image["file_name"]: labels[image["id"]] for image in found["images"]}


def _read_labelled(path: Path) -> dict[str, int]:
    """Label by file, from lines of a path and a number."""
    labels = {}
    for number, line in enumerate(read_lines(path), start=1):
        file, _, label = line.rpartition(" ")
        if not file or not label.isdecimal():
            raise UserError(f"Line {number} of {path} is {line!r}, but it must be a path and a label from 0 on.")
        labels[file] = int(label)
    return labels


def _check_labels(labels: dict[str, int], num_classes: int, root: Path) -> None:
    wrong = next(((file, label) for file, label in labels.items() if not 0 <= label < num_classes), None)
    if wrong is not None:
        raise UserError(
            f"The lists in {root} give {wrong[0]} the label {wrong[1]}, but there are {num_classes} classes (from 0): the lists "
            "are damaged or of another dataset."
        )
