"""Stanford Cars."""

import logging
from pathlib import Path, PurePosixPath
from typing import Any

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import (
    Listing,
    below,
    by_class_folder,
    check_labels,
    find_folder,
    from_class_folders,
    where_images_are,
    without_labels,
)
from lit_splitmask.errors import UserError

log = logging.getLogger(__name__)

_META, _TRAIN, _TEST = "cars_meta.mat", "cars_train_annos.mat", "cars_test_annos_withlabels.mat"
_ALL = "cars_annos.mat"
_DEPTH = 3  # such as stanford_cars/car_devkit/devkit/


class StanfordCars(ListedData):
    """Stanford Cars: ``cars_train/``, ``cars_test/`` and MATLAB files, wherever below ``root``; or class folders.

    It reads the official lists (``cars_meta.mat``, ``cars_train_annos.mat``, ``cars_test_annos_withlabels.mat``); the list of
    all images (``cars_annos.mat``) with the images that it names; and ``train/<class>/`` with ``test/<class>/``. Images without
    a list of their classes can be used for pre-training.

    Example:
        >>> from lit_splitmask.datamodules import StanfordCars
        >>> data = StanfordCars("stanford_cars", image_size=224)
        >>> data.facts.classes
        196
    """

    facts = Facts(
        "Stanford Cars",
        Release("the official split", 8_144, 8_041),
        classes=196,
        capped=True,
        where=(
            "Stanford Cars is no longer at its old address; copies are on Kaggle and Hugging Face. DIR must hold cars_train/, "
            "cars_test/, devkit/cars_meta.mat, devkit/cars_train_annos.mat and cars_test_annos_withlabels.mat "
            "(github.com/pytorch/vision/issues/7545 says where); or train/<class>/ and test/<class>/; or car_ims/ and "
            "cars_annos.mat."
        ),
    )
    recipes = ("splitmask_cars", "finetune_cars")
    markers = (
        ("cars_train/*", "cars_test/*"),
        ("cars_train/cars_train/*", "cars_test/cars_test/*"),
        ("car_ims/*", "cars_annos.mat"),
    )

    def listing(self) -> Listing:
        lists = {name: path for name in (_META, _TRAIN, _TEST, _ALL) if (path := self._path(name)) is not None}
        if {_META, _TRAIN, _TEST} <= lists.keys():
            return self._official(lists[_META], lists[_TRAIN], lists[_TEST])
        found = self._one_list(lists[_ALL]) if _ALL in lists else None
        folders = find_folder(self.root, "train", "test", depth=_DEPTH)
        if found is None and folders is not None:
            train, test = (by_class_folder(self.root, f"{folders}{split}") for split in ("train", "test"))
            return from_class_folders(train, test, self.facts.where)
        return found or self._images_alone(lists)

    def _path(self, name: str) -> Path | None:
        folder = find_folder(self.root, name, depth=_DEPTH)
        return None if folder is None else self.root / folder / name

    def _load(self, path: Path) -> dict[str, Any]:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError

        try:
            return dict(loadmat(str(path), squeeze_me=True))
        except (ValueError, TypeError, NotImplementedError, MatReadError) as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: Path, error: Exception) -> UserError:
        return UserError(f"The MATLAB file {path} is damaged ({error}). {self.facts.where}")

    def _official(self, meta: Path, *annotations: Path) -> Listing:
        """The listing by the official lists."""
        names = self._names(meta)
        splits = []
        for folder, path in zip(("cars_train", "cars_test"), annotations, strict=True):
            try:
                entries = self._load(path)["annotations"].ravel()
                labels = {f"{folder}/{entry['fname']}": int(entry["class"]) - 1 for entry in entries}
            except (KeyError, ValueError, TypeError) as error:
                raise self._damaged(path, error) from error
            splits.append(below(where_images_are(self.root, labels), labels))
        check_labels(splits[0] | splits[1], len(names), self.root)
        return Listing(splits[0], splits[1], names)

    def _names(self, path: Path) -> list[str]:
        try:
            return [str(name) for name in self._load(path)["class_names"]]
        except (KeyError, TypeError) as error:
            raise self._damaged(path, error) from error

    def _one_list(self, path: Path) -> Listing | None:
        """The listing by the list of all images; None if the images have other names.

        The list numbers the images of ``car_ims/``; those of ``cars_train/`` and ``cars_test/`` are numbered separately.
        """
        names = self._names(path)
        try:
            entries = self._load(path)["annotations"].ravel()
            rows = [(str(one["relative_im_path"]), int(one["class"]) - 1, bool(one["test"])) for one in entries]
        except (KeyError, ValueError, TypeError) as error:
            raise self._damaged(path, error) from error
        splits = [{file: label for file, label, is_test in rows if is_test == wanted} for wanted in (False, True)]
        in_folders = [
            {f"{folder}/{PurePosixPath(file).name}": label for file, label in split.items()}
            for folder, split in zip(("cars_train", "cars_test"), splits, strict=True)
        ]
        for candidates in (splits, in_folders):
            found = [below(where_images_are(self.root, labels), labels) for labels in candidates]
            if all((self.root / file).exists() for labels in found for file in labels):
                check_labels(found[0] | found[1], len(names), self.root)
                return Listing(found[0], found[1], names)
        return None

    def _images_alone(self, lists: dict[str, Path]) -> Listing:
        """The listing without labels."""
        folder = self.find("cars_train", "cars_test")
        missing = ", ".join(name for name in (_META, _TRAIN, _TEST) if name not in lists)
        other = f" {lists[_ALL]} names other images (car_ims/)." if _ALL in lists else ""
        log.warning(
            "%s is read without labels, which is enough to pre-train: %s not found.%s To fine-tune: %s",
            self.root,
            f"{missing} were" if ", " in missing else f"{missing} was",
            other,
            self.facts.where,
        )
        return without_labels(self.root, f"{folder}cars_train", f"{folder}cars_test")
