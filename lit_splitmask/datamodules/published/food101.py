"""Food-101."""

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, below, find_folder, read_json, where_images_are
from lit_splitmask.errors import UserError
from lit_splitmask.files import bounded_waiting


class Food101(ListedData):
    """Food-101: ``images/<class>/``, ``meta/train.json``, ``meta/test.json``; in ``root`` or below it.

    Example:
        >>> from lit_splitmask.datamodules import Food101
        >>> data = Food101("food-101", image_size=224)
        >>> data.facts.classes
        101
    """

    facts = Facts(
        "Food-101",
        Release("the official split", 75_750, 25_250),
        classes=101,
        capped=True,
        where=(
            "Food-101 is at data.vision.ee.ethz.ch/cvl/datasets_extra/food-101: unpack food-101.tar.gz, so that DIR holds "
            "images/<class>/ and meta/train.json, meta/test.json; or pass download=true."
        ),
    )

    recipes = ("splitmask_food101", "finetune_food101")
    markers = (("images", "meta/train.json", "meta/test.json"), ("images", "meta/meta/train.json"))

    def fetch(self) -> None:
        """Downloads and unpacks the archive through torchvision.

        Raises:
            UserError: The download failed.
        """
        from torchvision.datasets import Food101 as TorchvisionFood101

        try:
            with bounded_waiting():
                TorchvisionFood101(str(self.root), download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(f"Food-101 could not be downloaded ({error}). {self.facts.where}") from error

    def listing(self) -> Listing:
        meta = "meta/" if find_folder(self.root, "meta/meta/train.json") is None else "meta/meta/"  # a copy on Kaggle
        inside = self.find(f"{meta}train.json", f"{meta}test.json")
        train, test = (read_json(self.root / f"{inside}{meta}{split}.json") for split in ("train", "test"))
        names = sorted(train)
        if names != sorted(test):
            raise UserError(
                f"meta/train.json and meta/test.json in {self.root} name different classes: unpack them again."
            )
        labels = [
            {f"images/{file}.jpg": label for label, name in enumerate(names) for file in split[name]}
            for split in (train, test)
        ]
        folder = where_images_are(self.root, labels[0], inside)
        return Listing(below(folder, labels[0]), below(folder, labels[1]), names)
