"""Stanford Cars."""

from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.lists import Listing, check_labels
from lit_splitmask.errors import UserError


class StanfordCars(ListedData):
    """Stanford Cars: ``cars_train/``, ``cars_test/``, MATLAB files; in ``root`` or in ``root/stanford_cars``.

    Example:
        >>> from lit_splitmask.datamodules import StanfordCars
        >>> data = StanfordCars("stanford_cars", image_size=224)
        >>> data.facts.classes
        196
    """

    facts = Facts(
        "Stanford Cars",
        Release("the official split", 8_144, 8_041),
        classes=196,
        capped=True,
        where=(
            "Stanford Cars is no longer at its old address; copies are on Kaggle and Hugging Face. DIR must hold cars_train/, "
            "cars_test/, devkit/cars_meta.mat, devkit/cars_train_annos.mat and cars_test_annos_withlabels.mat."
        ),
    )

    def listing(self) -> Listing:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError

        inside = "stanford_cars/" if (self.root / "stanford_cars").is_dir() else ""
        paths = self.require(
            f"{inside}devkit/cars_meta.mat",
            f"{inside}devkit/cars_train_annos.mat",
            f"{inside}cars_test_annos_withlabels.mat",
        )
        try:
            meta, *annotations = (loadmat(str(path), squeeze_me=True) for path in paths)
            names = [str(name) for name in meta["class_names"]]
            train, test = (
                {
                    f"{inside}{folder}/{entry['fname']}": int(entry["class"]) - 1
                    for entry in found["annotations"].ravel()
                }
                for folder, found in zip(("cars_train", "cars_test"), annotations, strict=True)
            )
        except (KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
            raise UserError(f"The MATLAB files in {self.root} are damaged ({error}). {self.facts.where}") from error
        check_labels(train | test, len(names), self.root)
        return Listing(train, test, names)
