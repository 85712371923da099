"""Lists of numbers: labels, splits, what is for classes only."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import DATA, classifier, pretrain_module, tiny_trainer

from lit_splitmask.datamodules import Budget, Manifest, RegressionManifest
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.images.split import quantiles

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


def write(folder: Path, numbers: list[str]) -> Path:
    """A list of grey images of different brightness, with these numbers."""
    for n in range(len(numbers)):
        Image.fromarray(np.full((32, 32, 3), n, dtype=np.uint8)).save(folder / f"{n:03d}.png")
    path = folder / "list.csv"
    path.write_text("\n".join(["image,wear", *(f"{n:03d}.png,{number}" for n, number in enumerate(numbers))]))
    return path


def data(path: Path, **settings: Any) -> RegressionManifest:
    values: dict[str, Any] = {**DATA, "budget": Budget(steps=2), "index_dir": str(path.parent / "index")}
    return RegressionManifest(str(path), target="wear", **(values | settings))


def opened(path: Path, **settings: Any) -> RegressionManifest:
    images = data(path, **settings)
    images.prepare_data()
    images.setup("fit")
    return images


def test_images_have_their_numbers_and_those_without_none(tmp_path: Path) -> None:
    images = opened(write(tmp_path, [str(n / 4) if n % 5 else "" for n in range(40)]))
    assert images.class_names == ["wear"]
    assert images.num_classes == 1
    for samples in images.source.splits.values():
        for index, number in enumerate(samples.targets(np.arange(len(samples))).tolist()):
            n = int(samples.files[index][:3])
            assert number == n / 4 if n % 5 else np.isnan(number)
    assert len(images.train_targets) < len(images.train_samples)
    assert np.isfinite(images.train_targets).all()


def test_splits_and_shares_are_cut_over_the_whole_range(tmp_path: Path) -> None:
    path = write(tmp_path, [str((37 * n) % 100) for n in range(100)])
    images = opened(path, splits=SplitOptions(test_share=0.2, val_share=0.1))
    for name, of_each in (("test", 2), ("val", 1), ("train", 7)):
        samples = images.source.splits[name]
        tens = samples.targets(np.arange(len(samples))) // 10
        assert np.bincount(tens.astype(int)).tolist() == [of_each] * 10, name
    part = opened(path, splits=SplitOptions(test_share=0.2, val_share=0.1), label_share=0.3)
    ranks = np.searchsorted(np.sort(images.train_targets), part.train_targets)
    assert np.bincount(ranks // 10).tolist() == [3] * 7


def test_quantiles_are_of_about_equal_size_and_keep_equal_numbers_together() -> None:
    assert np.ptp(np.bincount(quantiles(list(range(95))))) <= 1
    assert set(quantiles([5.0] * 50).tolist()) == {0}
    assert len(set(quantiles(list(range(19))).tolist())) == 1  # fewer than twenty: not cut
    parts = quantiles([3.0, 1.0, 2.0] * 10)
    assert len({tuple(parts[start::3].tolist()) for start in range(3)}) == 3


def test_pretraining_gets_the_images_without_numbers_in_the_same_splits(tmp_path: Path) -> None:
    path = write(tmp_path, [str(n) for n in range(40)])
    images = data(path)
    trainer = tiny_trainer(tmp_path)
    trainer.fit(pretrain_module(), datamodule=images)
    assert images.class_names == []
    assert set(images.train_samples.labels.tolist()) == {-1}
    assert list(images.train_samples.files) == list(opened(path).train_samples.files)


def test_a_classifier_is_refused_and_the_same_list_still_has_classes(tmp_path: Path) -> None:
    path = write(tmp_path, [str(n % 4) for n in range(40)])
    with pytest.raises(UserError, match=r"Classify learns classes, but RegressionManifest reads numbers: use Regress"):
        tiny_trainer(tmp_path).fit(classifier(), datamodule=data(path))
    path.write_text(path.read_text().replace("wear", "label"))
    classes = Manifest(str(path), **(DATA | {"budget": None, "index_dir": str(tmp_path / "classes")}))
    classes.prepare_data()
    classes.setup("test")
    assert classes.class_names == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"balance": 0.5}, r"data.balance=0.5 is for classes, not for numbers"),
        ({"unlabelled_share": 0.5}, r"data.unlabelled_share=0.5 is for classes"),
        ({"splits": SplitOptions(labels="several")}, "data.splits.labels=several is for classes"),
        ({"splits": SplitOptions(labels="none")}, "data.splits.labels=none is for classes"),
    ],
)
def test_settings_for_classes_are_refused(settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        data(tmp_path / "list.csv", **settings)


def test_another_list_class_names_the_one_for_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, [str(n) for n in range(4)])
    with pytest.raises(UserError, match=r"give --data RegressionManifest --data.target COLUMN"):
        Manifest(str(path), splits=SplitOptions(labels="numbers"), index_dir=str(tmp_path / "i")).prepare_data()


def test_each_column_has_its_own_splits_and_a_changed_number_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, [str(n) for n in range(20)])
    first, other = data(path), RegressionManifest(str(path), target="depth", index_dir=str(tmp_path / "index"))
    assert first.record != other.record
    first.prepare_data()
    path.write_text(path.read_text().replace("007.png,7", "007.png,7.5"))
    with pytest.raises(UserError, match="has changed since its images were split"):
        data(path).prepare_data()
