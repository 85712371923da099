"""What is known of the paper's datasets: Table 3, and where a person gets the files. Data only."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from lit_splitmask.loading.budget import IMAGENET_IMAGES, IMAGENET_PASSES, MAX_PASSES


@dataclass(frozen=True)
class Release:
    """A published version of a dataset.

    Attributes:
        name: What it is called.
        train, test: Images.
    """

    name: str
    train: int
    test: int


@dataclass(frozen=True)
class Facts:
    """One dataset.

    Attributes:
        title: As in Table 3.
        table: Images as Table 3 counts them; the paper's "test" images are the official validation images of ImageNet,
            iNaturalist, ADE20K and COCO.
        classes: Number of classes.
        passes: Epochs of pre-training in Table 3.
        where: Where a person gets the files, and how they must lie.
        capped: Whether the cap of 5,000 passes holds (small classification sets).
        others: Other releases, whose counts explain a difference.
        labelled: Whether labels are read here; those of ADE20K and COCO come with dense prediction.
    """

    title: str
    table: Release
    classes: int
    passes: int
    where: str
    capped: bool = False
    others: tuple[Release, ...] = field(default=())
    labelled: bool = True

    @property
    def rule_passes(self) -> float:
        """Passes by the rule: as many images as 300 passes over ImageNet see, capped where the cap holds."""
        passes = IMAGENET_PASSES * IMAGENET_IMAGES / self.table.train
        return min(passes, MAX_PASSES) if self.capped else passes

    def explain_counts(self, train: int, test: int, num_classes: int) -> str | None:
        """What differs from Table 3, and why if that is known; None if nothing does."""
        problems = []
        if (train, test) != (self.table.train, self.table.test):
            found = f"{train:,} training and {test:,} test images, where the paper has"
            problems.append(f"{found} {self.table.train:,} and {self.table.test:,} ({self.table.name})")
            known = next((r for r in self.others if (r.train, r.test) == (train, test)), None)
            if known is not None:
                problems.append(f"these are exactly the counts of {known.name}")
            elif train < self.table.train or test < self.table.test:
                problems.append("files are missing, or the lists are of another release")
            else:
                problems.append("the lists are of another release")
        if self.labelled and num_classes != self.classes:
            problems.append(f"{num_classes:,} classes, where the paper has {self.classes:,}")
        return f"{self.title}: {'; '.join(problems)}." if problems else None


def _domain(title: str, original: tuple[int, int], cleaned: tuple[int, int], *, domain: str) -> Facts:
    return Facts(
        title,
        Release("the original, uncleaned lists", *original),
        classes=345,
        passes=5_000,
        capped=True,
        others=(Release("the cleaned lists", *cleaned),),
        where=(
            f"DomainNet is at ai.bu.edu/M3SDA: unpack {domain}.zip, so that DIR/{domain}/<class>/ holds the images, and put "
            f"{domain}_train.txt and {domain}_test.txt into DIR. The paper used the original lists (on that page under "
            '"original"), not the cleaned ones.'
        ),
    )  # fmt: skip


_INAT = (
    "iNaturalist {year} is at github.com/visipedia/inat_comp/tree/master/{year}: unpack train_val{year}.tar.gz, so that "
    "DIR/train_val{year}/<group>/<category>/ holds the images, and put train{year}.json and val{year}.json into DIR."
)

FACTS: dict[str, Facts] = {
    "imagenet": Facts(
        "ImageNet",
        Release("ILSVRC 2012", IMAGENET_IMAGES, 50_000),
        classes=1_000,
        passes=300,
        where=(
            "ImageNet (ILSVRC 2012) is at image-net.org, after registration: unpack it so that DIR/train/<wnid>/ and "
            "DIR/val/<wnid>/ hold the images (torchvision.datasets.ImageNet does that from the three archives)."
        ),
    ),
    "inat2018": Facts(
        "iNaturalist 2018",
        Release("the official split", 437_513, 24_426),
        classes=8_142,
        passes=800,
        where=_INAT.format(year=2018),
    ),
    "inat2019": Facts(
        "iNaturalist 2019",
        Release("the split that the paper and DeiT count", 265_240, 3_003),
        classes=1_010,
        passes=1_400,
        others=(Release("the official JSON files (3 test images a class; the same 268,243 in all)", 265_213, 3_030),),
        where=_INAT.format(year=2019),
    ),
    "food101": Facts(
        "Food-101",
        Release("the official split", 75_750, 25_250),
        classes=101,
        passes=5_000,
        capped=True,
        where=(
            "Food-101 is at data.vision.ee.ethz.ch/cvl/datasets_extra/food-101: unpack food-101.tar.gz, so that DIR holds "
            "images/<class>/ and meta/train.json, meta/test.json; or pass download=true."
        ),
    ),
    "cars": Facts(
        "Stanford Cars",
        Release("the official split", 8_144, 8_041),
        classes=196,
        passes=5_000,
        capped=True,
        where=(
            "Stanford Cars is no longer at its old address; copies are on Kaggle and Hugging Face. DIR must hold cars_train/, "
            "cars_test/, devkit/cars_meta.mat, devkit/cars_train_annos.mat and cars_test_annos_withlabels.mat."
        ),
    ),
    "clipart": _domain("Clipart", (34_019, 14_818), (33_525, 14_604), domain="clipart"),
    "painting": _domain("Painting", (52_867, 22_892), (50_416, 21_850), domain="painting"),
    "sketch": _domain("Sketch", (49_115, 21_271), (48_212, 20_916), domain="sketch"),
    "ade20k": Facts(
        "ADE20K",
        Release("the scene parsing benchmark", 20_210, 2_000),
        classes=150,
        passes=21_000,
        labelled=False,
        where=(
            "ADE20K's scene parsing benchmark is at sceneparsing.csail.mit.edu: unpack ADEChallengeData2016.zip, so that DIR "
            "holds images/training/ and images/validation/."
        ),
    ),
    "coco": Facts(
        "COCO",
        Release("COCO 2017", 118_287, 5_000),
        classes=80,
        passes=3_000,
        labelled=False,
        where="COCO 2017 is at cocodataset.org: unpack train2017.zip and val2017.zip, so that DIR holds train2017/ and val2017/.",
    ),
}
"""By the name that recipes use."""


def table_3() -> Iterator[list[str]]:
    """Rows of Table 3 with the rule's passes beside the paper's: the first row is the header."""
    yield ["dataset", "train", "test", "classes", "epochs (Table 3)", "epochs by the rule", "images seen / ImageNet's"]
    for facts in FACTS.values():
        seen = facts.passes * facts.table.train / (IMAGENET_PASSES * IMAGENET_IMAGES)
        yield [
            facts.title,
            f"{facts.table.train:,}",
            f"{facts.table.test:,}",
            f"{facts.classes:,}",
            f"{facts.passes:,}",
            f"{facts.rule_passes:,.0f}",
            f"{seen:.3f}",
        ]
