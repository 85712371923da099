"""Three domains of DomainNet: clipart, paintings and sketches."""

from pathlib import Path

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, below, check_labels, read_labelled, where_images_are
from lit_splitmask.errors import UserError


def _domain_facts(title: str, original: tuple[int, int], cleaned: tuple[int, int], *, domain: str) -> Facts:
    return Facts(
        title,
        Release("the original, uncleaned lists", *original),
        classes=345,
        capped=True,
        others=(Release("the cleaned lists", *cleaned),),
        where=(
            f"DomainNet is at ai.bu.edu/M3SDA: unpack {domain}.zip, so that DIR/{domain}/<class>/ holds the images, and put "
            f"{domain}_train.txt and {domain}_test.txt into DIR. The paper used the original lists (on that page under "
            '"original"), not the cleaned ones.'
        ),
    )


class _DomainNet(ListedData):
    """One domain of DomainNet: ``<domain>/<class>/``, ``<domain>_train.txt``, ``<domain>_test.txt``; in ``root`` or below it.

    The lists decide the release. The paper used the original ones; the cleaned ones cause a warning.
    """

    domain: str

    def listing(self) -> Listing:
        names_of_lists = f"{self.domain}_train.txt", f"{self.domain}_test.txt"
        inside = self.find(*names_of_lists)
        train, test = (read_labelled(self.root / inside / name) for name in names_of_lists)
        names: dict[int, str] = {}
        for file, label in (train | test).items():
            if names.setdefault(label, Path(file).parent.name) != Path(file).parent.name:
                raise UserError(
                    f"The lists of {self.domain} in {self.root} give the label {label} to images of two classes, "
                    f"{names[label]} and {Path(file).parent.name}: use lists of one release."
                )
        # painting's training list lacks a class, so labels may have gaps; they are not renumbered
        check_labels(train | test, self.facts.classes, self.root)
        folder = where_images_are(self.root, train, inside)
        train, test = below(folder, train), below(folder, test)
        return Listing(train, test, [names.get(label, f"class {label}") for label in range(max(names, default=-1) + 1)])


class Clipart(_DomainNet):
    """DomainNet's clipart: ``clipart/<class>/``, ``clipart_train.txt``, ``clipart_test.txt``.

    Example:
        >>> from lit_splitmask.datamodules import Clipart
        >>> data = Clipart("domainnet", image_size=224)
        >>> data.facts.release.name
        'the original, uncleaned lists'
    """

    facts = _domain_facts("Clipart", (34_019, 14_818), (33_525, 14_604), domain="clipart")
    recipes = ("splitmask_clipart", "finetune_clipart")
    markers = (("clipart_train.txt", "clipart_test.txt"), ("clipart", "clipart_train.txt"))
    domain = "clipart"


class Painting(_DomainNet):
    """DomainNet's paintings: ``painting/<class>/``, ``painting_train.txt``, ``painting_test.txt``.

    Example:
        >>> from lit_splitmask.datamodules import Painting
        >>> data = Painting("domainnet", image_size=224)
        >>> data.facts.release.name
        'the original, uncleaned lists'
    """

    facts = _domain_facts("Painting", (52_867, 22_892), (50_416, 21_850), domain="painting")
    recipes = ("splitmask_painting", "finetune_painting")
    markers = (("painting_train.txt", "painting_test.txt"), ("painting", "painting_train.txt"))
    domain = "painting"


class Sketch(_DomainNet):
    """DomainNet's sketches: ``sketch/<class>/``, ``sketch_train.txt``, ``sketch_test.txt``.

    Example:
        >>> from lit_splitmask.datamodules import Sketch
        >>> data = Sketch("domainnet", image_size=224)
        >>> data.facts.release.name
        'the original, uncleaned lists'
    """

    facts = _domain_facts("Sketch", (49_115, 21_271), (48_212, 20_916), domain="sketch")
    recipes = ("splitmask_sketch", "finetune_sketch")
    markers = (("sketch_train.txt", "sketch_test.txt"), ("sketch", "sketch_train.txt"))
    domain = "sketch"
