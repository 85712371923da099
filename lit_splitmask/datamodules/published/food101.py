"""Food-101."""

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, read_json
from lit_splitmask.errors import UserError


class Food101(ListedData):
    """Food-101: ``images/<class>/``, ``meta/train.json``, ``meta/test.json``; in ``root`` or in ``root/food-101``.

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

    def fetch(self) -> None:
        """Downloads and unpacks the archive through torchvision.

        Raises:
            UserError: The download failed.
        """
        from torchvision.datasets import Food101 as TorchvisionFood101

        try:
            TorchvisionFood101(str(self.root), download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(f"Food-101 could not be downloaded ({error}). {self.facts.where}") from error

    def listing(self) -> Listing:
        inside = "food-101/" if (self.root / "food-101").is_dir() else ""
        train, test = (read_json(path) for path in self.require(f"{inside}meta/train.json", f"{inside}meta/test.json"))
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
