"""iNaturalist 2018 and 2019."""

from typing import Any

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, below, read_json, where_images_are
from lit_splitmask.errors import UserError


def _inaturalist_facts(year: int, release: Release, classes: int, others: tuple[Release, ...] = ()) -> Facts:
    return Facts(
        f"iNaturalist {year}",
        release,
        classes=classes,
        others=others,
        where=(
            f"iNaturalist {year} is at github.com/visipedia/inat_comp/tree/master/{year}: unpack train_val{year}.tar.gz, so that "
            f"DIR/train_val{year}/<group>/<category>/ holds the images, and put train{year}.json and val{year}.json into DIR."
        ),
    )


class _INaturalist(ListedData):
    """iNaturalist, split by its JSON files (torchvision's loader mixes training and validation images)."""

    year: int

    def listing(self) -> Listing:
        names_of_lists = f"train{self.year}.json", f"val{self.year}.json"
        inside = self.find(*names_of_lists)
        lists = [read_json(self.root / inside / name) for name in names_of_lists]
        try:
            names = {category["id"]: str(category["name"]) for category in lists[0]["categories"]}
            number = {category: label for label, category in enumerate(sorted(names))}
            train, test = (_labels_of(found, number) for found in lists)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"train{self.year}.json and val{self.year}.json in {self.root} are damaged, or of different releases: the entry "
                f"{error} is missing. {self.facts.where}"
            ) from error
        folder = where_images_are(self.root, train, inside)
        return Listing(below(folder, train), below(folder, test), [names[category] for category in sorted(names)])


def _labels_of(found: Any, number: dict[int, int]) -> dict[str, int]:
    labels = {entry["image_id"]: number[entry["category_id"]] for entry in found["annotations"]}
    return {image["file_name"]: labels[image["id"]] for image in found["images"]}


class INaturalist2018(_INaturalist):
    """iNaturalist 2018: ``train_val2018/<group>/<category>/``, ``train2018.json``, ``val2018.json``.

    Example:
        >>> from lit_splitmask.datamodules import INaturalist2018
        >>> data = INaturalist2018("inat2018", image_size=224)
        >>> data.facts.classes
        8142
    """

    facts = _inaturalist_facts(2018, Release("the official split", 437_513, 24_426), classes=8_142)
    recipes = ("splitmask_inat2018", "finetune_inat2018")
    markers = (("train_val2018",), ("train2018.json", "val2018.json"))
    year = 2018


class INaturalist2019(_INaturalist):
    """iNaturalist 2019: ``train_val2019/<group>/<category>/``, ``train2019.json``, ``val2019.json``.

    Example:
        >>> from lit_splitmask.datamodules import INaturalist2019
        >>> data = INaturalist2019("inat2019", image_size=224)
        >>> data.facts.classes
        1010
    """

    facts = _inaturalist_facts(
        2019,
        Release("the split that the paper and DeiT count", 265_240, 3_003),
        classes=1_010,
        others=(
            Release("the official JSON files (3 test images per class; the same 268,243 in total)", 265_213, 3_030),
        ),
    )
    recipes = ("splitmask_inat2019", "finetune_inat2019")
    markers = (("train_val2019",), ("train2019.json", "val2019.json"))
    year = 2019
