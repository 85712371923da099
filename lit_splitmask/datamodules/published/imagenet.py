"""ImageNet."""

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, by_class_folder
from lit_splitmask.errors import UserError
from lit_splitmask.loading.budget import IMAGENET_IMAGES


class ImageNet(ListedData):
    """ImageNet (ILSVRC 2012): ``train/<wnid>/`` and ``val/<wnid>/``.

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
            "DIR/val/<wnid>/ hold the images (torchvision.datasets.ImageNet does that from the three archives)."
        ),
    )

    def listing(self) -> Listing:
        self.require("train", "val")
        train, test = (by_class_folder(self.root, split) for split in ("train", "val"))
        names = sorted(set(train.values()))
        unknown = sorted(set(test.values()) - set(names))
        if unknown:
            raise UserError(
                f"{self.root / 'val'} holds the class {unknown[0]}, which train lacks: sort the validation images into one "
                f"folder per class. {self.facts.where}"
            )
        number = {name: label for label, name in enumerate(names)}
        return Listing(
            {file: number[name] for file, name in train.items()},
            {file: number[name] for file, name in test.items()},
            names,
        )
