"""ADE20K's images; with its label maps, it is read by ``SegmentationFolder``."""

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, without_labels


class ADE20K(ListedData):
    """ADE20K's images, for pre-training: ``images/training/``, ``images/validation/``; in ``root`` or below it.

    Example:
        >>> from lit_splitmask.datamodules import ADE20K
        >>> data = ADE20K("ADEChallengeData2016", image_size=224)
        >>> data.facts.release.train, data.facts.labelled
        (20210, False)
    """

    facts = Facts(
        "ADE20K",
        Release("the scene parsing benchmark", 20_210, 2_000),
        classes=150,
        labelled=False,
        where=(
            "ADE20K's scene parsing benchmark is at sceneparsing.csail.mit.edu: unpack ADEChallengeData2016.zip, so that DIR "
            "holds images/training/ and images/validation/."
        ),
    )

    recipes = ("splitmask_ade20k", "segment_ade20k")

    def listing(self) -> Listing:
        inside = self.find("images/training", "images/validation")
        return without_labels(self.root, f"{inside}images/training", f"{inside}images/validation")
