"""ImageNet."""

import logging
from pathlib import Path, PurePosixPath

from lit_splitmask.annotations.csv_table import read_table
from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, by_class_folder, find_folder, from_class_folders
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines
from lit_splitmask.images.tree import Tree
from lit_splitmask.loading.budget import IMAGENET_IMAGES

log = logging.getLogger(__name__)

_KAGGLE = "Data/CLS-LOC/train"
_SOLUTION = "LOC_val_solution.csv"
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_LEVELS_UP = 3  # from CLS-LOC to the folder of Kaggle's lists


class ImageNet(ListedData):
    """ImageNet (ILSVRC 2012): ``train/<wnid>/`` and ``val/<wnid>/``, in ``root`` or below it, such as Kaggle's ``Data/CLS-LOC/``.

    Validation images that are not sorted into folders get their classes from ``LOC_val_solution.csv`` (Kaggle) or from the
    development kit. Without validation images there is no test split.

    ``subset_list`` takes the published lists of 1 % and 10 % (github.com/google-research/simclr, ``imagenet_subsets/``);
    ``label_share`` draws any other share, balanced and nested, down to one image per class (Figure 2).

    Example:
        >>> from lit_splitmask.datamodules import ImageNet
        >>> data = ImageNet("imagenet", image_size=224, label_share=0.1)
        >>> data.facts.release.train
        1281167
    """

    facts = Facts(
        "ImageNet",
        Release("ILSVRC 2012", IMAGENET_IMAGES, 50_000),
        classes=1_000,
        where=(
            "ImageNet (ILSVRC 2012) is at image-net.org, after registration: unpack it so that DIR/train/<wnid>/ and "
            "DIR/val/<wnid>/ hold the images (torchvision.datasets.ImageNet does that from the three archives). Kaggle's "
            "imagenet-object-localization-challenge is read as it is: DIR holds ILSVRC/ and LOC_val_solution.csv. train alone is "
            "enough for pre-training."
        ),
    )
    recipes = ("splitmask_imagenet", "finetune_imagenet")
    markers = (("Data/CLS-LOC",), ("ILSVRC/Data/CLS-LOC",), ("train", "val/ILSVRC2012_val_*.JPEG"))

    def listing(self) -> Listing:
        kaggle = find_folder(self.root, _KAGGLE)
        inside = self.find("train") if kaggle is None else f"{kaggle}Data/CLS-LOC/"
        train, test = by_class_folder(self.root, f"{inside}train"), self._val(f"{inside}val")
        if not test:
            log.warning("%s has no validation images, so there is no test split.", self.root / inside)
        return from_class_folders(train, test, self.facts.where)

    def _val(self, folder: str) -> dict[str, str]:
        """The class of each validation image; empty without such images."""
        if not (self.root / folder).is_dir():
            return {}
        files = Tree.read(self.root / folder).images
        if any("/" in file for file in files):
            return by_class_folder(self.root, folder)
        return {f"{folder}/{file}": name for file, name in self._from_lists(files).items()}

    def _from_lists(self, files: list[str]) -> dict[str, str]:
        """The class of each validation image, from a list."""
        if not files:
            return {}
        solution, ground_truth = self._list(_SOLUTION), self._list(_GROUND_TRUTH)
        if solution is not None:
            by_name = _read_solution(solution)
        elif ground_truth is not None and (ground_truth.parent / "meta.mat").is_file():
            by_name = _read_ground_truth(ground_truth)
        else:
            raise UserError(
                f"The {len(files):,} validation images in {self.root} are not sorted into folders of their classes, and the list "
                f"of their classes is missing: put {_SOLUTION} (from Kaggle) or ILSVRC2012_devkit_t12/ (with data/meta.mat and "
                f"data/{_GROUND_TRUTH}) into {self.root}; or, to pre-train only, move these images away."
            )
        unknown = next((file for file in files if PurePosixPath(file).stem not in by_name), None)
        if unknown is not None:
            raise UserError(
                f"{solution or ground_truth} gives no class to the validation image {unknown}: it must be that of ILSVRC 2012."
            )
        return {file: by_name[PurePosixPath(file).stem] for file in files}

    def _list(self, name: str) -> Path | None:
        """A list below the root, or in a folder above it."""
        inside = find_folder(self.root, name)
        if inside is not None:
            return self.root / inside / name
        above = self.root.resolve().parents[:_LEVELS_UP]
        places = [folder / inner / name for folder in above for inner in ("", "ILSVRC2012_devkit_t12/data")]
        return next((path for path in places if path.is_file()), None)


def _read_solution(path: Path) -> dict[str, str]:
    """Class by name of the image, from Kaggle's list: image, then class and box of each object."""
    table = read_table(path)
    if table.header != ["ImageId", "PredictionString"]:
        raise UserError(
            f"{path} has the columns {', '.join(table.header)}, not ImageId and PredictionString: copy it again."
        )
    return {image: objects.split(" ")[0] for image, objects in table.rows}


def _read_ground_truth(path: Path) -> dict[str, str]:
    """Class by name of the image, from the development kit: a number for each image, and the numbers' classes in meta.mat."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        synsets = loadmat(str(path.parent / "meta.mat"), squeeze_me=True)["synsets"]
        names = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets.ravel()}
        numbers = [int(line) for line in read_lines(path)]
        return {f"ILSVRC2012_val_{number:08d}": names[label] for number, label in enumerate(numbers, start=1)}
    except (KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise UserError(
            f"{path} or meta.mat beside it is damaged ({error}): unpack the development kit again."
        ) from error
