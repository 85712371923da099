"""What is known about a published dataset before its files are read: counts, classes, and where to get it."""

from dataclasses import dataclass, field

from lit_splitmask.loading.budget import IMAGENET_IMAGES, IMAGENET_PASSES, MAX_PASSES


@dataclass(frozen=True)
class Release:
    """A published version of a dataset.

    Attributes:
        name: What it is called.
        train: Number of training images.
        test: Number of test images; the official validation images if the test images have no public labels.
    """

    name: str
    train: int
    test: int


@dataclass(frozen=True)
class Facts:
    """A published dataset.

    Attributes:
        title: The dataset's name for people; for the paper's datasets, the name in Table 3.
        release: The expected release; for the paper's datasets, the one that Table 3 counts.
        classes: Number of classes.
        where: Where to get the files, and the layout that they must have, with DIR for the root.
        capped: Whether the default budget has at most 5,000 passes (the paper's rule for small classification sets).
        others: Other releases, whose counts explain a difference.
        labelled: Whether the datamodule reads labels; it does not for ADE20K and COCO, which are for dense prediction.
    """

    title: str
    release: Release
    classes: int
    where: str
    capped: bool = False
    others: tuple[Release, ...] = field(default=())
    labelled: bool = True

    @property
    def rule_passes(self) -> float:
        """Passes by the paper's rule: as many images as 300 passes over ImageNet see, and at most 5,000 passes if capped."""
        passes = IMAGENET_PASSES * IMAGENET_IMAGES / self.release.train
        return min(passes, MAX_PASSES) if self.capped else passes

    def explain_counts(self, train: int, test: int, num_classes: int) -> str | None:
        """How counts differ from the expected release, and why if that is known; None if they agree."""
        problems = []
        if (train, test) != (self.release.train, self.release.test):
            expected = f"{self.release.train:,} and {self.release.test:,} ({self.release.name})"
            problems.append(f"found {train:,} training and {test:,} test images, expected {expected}")
            known = next((r for r in self.others if (r.train, r.test) == (train, test)), None)
            if known is not None:
                problems.append(f"these are the counts of {known.name}")
            elif train < self.release.train or test < self.release.test:
                problems.append("files are missing, or the lists are of another release")
            else:
                problems.append("the lists are of another release")
        if self.labelled and num_classes != self.classes:
            problems.append(f"found {num_classes:,} classes, expected {self.classes:,}")
        return f"{self.title}: {'; '.join(problems)}." if problems else None
