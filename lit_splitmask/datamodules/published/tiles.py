"""Tiles, a made-up dataset."""

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, check_labels, read_labelled
from lit_splitmask.files import read_lines


class Tiles(ListedData):
    """Tiles: ``images/``, ``classes.txt``, ``train.txt``, ``test.txt``.

    Example:
        >>> from lit_splitmask.datamodules import Tiles
        >>> data = Tiles("tiles", image_size=224)
        >>> data.facts.classes
        12
    """

    facts = Facts(
        "Tiles",
        Release("version 1", 4_000, 1_000),
        classes=12,
        capped=True,
        where="Tiles is at example.org/tiles: unpack tiles.zip, so that DIR holds images/, classes.txt, train.txt and test.txt.",
    )

    def listing(self) -> Listing:
        classes, *lists = self.require("classes.txt", "train.txt", "test.txt")
        train, test = (read_labelled(path) for path in lists)
        names = read_lines(classes)
        check_labels(train | test, len(names), self.root)
        return Listing(train, test, names)
