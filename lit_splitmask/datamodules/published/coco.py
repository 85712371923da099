"""COCO's images; with its objects, it is read by ``CocoDetection``."""

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, without_labels


class COCO(ListedData):
    """COCO 2017's images, for pre-training: ``train2017/``, ``val2017/``; in ``root`` or below it.

    Example:
        >>> from lit_splitmask.datamodules import COCO
        >>> data = COCO("coco", image_size=224)
        >>> data.facts.release.train, data.facts.labelled
        (118287, False)
    """

    facts = Facts(
        "COCO",
        Release("COCO 2017", 118_287, 5_000),
        classes=80,
        labelled=False,
        where="COCO 2017 is at cocodataset.org: unpack train2017.zip and val2017.zip, so that DIR holds train2017/ and val2017/.",
    )

    recipes = ("splitmask_coco",)

    def listing(self) -> Listing:
        inside = self.find("train2017", "val2017")
        return without_labels(self.root, f"{inside}train2017", f"{inside}val2017")
