"""Weights of the classes in the loss of a classifier."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from tiny_runs import classifier, image_data, tiny_trainer
from torch.utils.data import DataLoader

from lit_splitmask.errors import UserError
from lit_splitmask.mixing import Mixing
from lit_splitmask.modules import Classify

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def root(split_folder: MakeFolder) -> Path:
    """12 training images: 6 discs, 4 squares, 2 of stripes."""
    folder = split_folder(train=6, val=1, test=1)
    for name, kept in (("square", 4), ("stripes", 2)):
        for file in sorted((folder / "train" / name).iterdir())[kept:]:
            file.unlink()
    return folder


def trained(root: Path, weights: Any, **data: Any) -> Classify:
    module = classifier(class_weights=weights)
    tiny_trainer(root.parent).fit(module, datamodule=image_data(root, steps=1, **data))
    return module


def test_balanced_weights_are_inverse_to_the_classes_and_one_on_average(root: Path) -> None:
    weights = trained(root, "balanced").mix.class_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([12 / (3 * 6), 12 / (3 * 4), 12 / (3 * 2)])
    assert float(weights @ torch.tensor([6.0, 4.0, 2.0])) == pytest.approx(12)


def test_what_sampling_has_evened_out_is_not_evened_out_again(root: Path) -> None:
    weights = trained(root, "balanced", balance=1.0).mix.class_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_of_each_images_loss_times_the_weight_of_its_class(
    smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = classifier(num_classes=3, mixup=0.0, cutmix=0.0, label_smoothing=smoothing, drop_path=0.0)
    with torch.no_grad():
        module.vit.get_parameter("head.weight").normal_()
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    module.mix.class_weights = torch.tensor([0.5, 1.0, 4.0])
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 2])
    loss = module.training_step({"image": images, "label": labels}, 0)
    each = F.cross_entropy(module(images), labels, reduction="none", label_smoothing=smoothing)
    assert float(loss) == pytest.approx(float((each * torch.tensor([0.5, 4.0, 1.0, 4.0])).mean()), rel=1e-5)


def test_a_mixed_image_has_the_weights_of_its_parts() -> None:
    mix = Mixing(2, mixup=0.8, cutmix=0.0, label_smoothing=0.0)
    mix.class_weights = torch.tensor([1.0, 3.0])
    _, targets = mix(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))
    shares = targets / torch.tensor([1.0, 3.0])
    assert torch.allclose(shares.sum(dim=1), torch.ones(2))
    assert 0 < float(shares[0, 0]) < 1


def test_a_list_has_a_weight_for_each_class(root: Path) -> None:
    weights = trained(root, [1.0, 2.0, 5.0]).mix.class_weights
    assert weights is not None
    assert weights.tolist() == [1, 2, 5]
    with pytest.raises(UserError, match=r"has 2 numbers, but there are 3 classes.*disc, square, stripes"):
        trained(root, [1.0, 2.0])


@pytest.mark.parametrize("given", [[], [1.0, -1.0, 1.0], [0.0, 0.0], [float("nan"), 1.0], "even"])
def test_what_is_no_list_of_weights_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match="class_weights is"):
        classifier(class_weights=given)


class Counted(LightningDataModule):
    """A datamodule of one's own, of three images of one class and one of another."""

    num_classes = 2

    def train_dataloader(self) -> DataLoader:
        images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return DataLoader([{"image": image, "label": int(i == 3)} for i, image in enumerate(images)], batch_size=4)


def test_a_datamodule_of_ones_own_may_tell_its_counts(tmp_path: Path) -> None:
    data, module = Counted(), classifier(class_weights="balanced")
    with pytest.raises(UserError, match="attribute class_shares"):
        tiny_trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    data.class_shares = (3, 1)
    module = classifier(class_weights="balanced")
    tiny_trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    assert module.mix.class_weights is not None
    assert module.mix.class_weights.tolist() == pytest.approx([4 / 6, 2])


def test_weights_make_training_care_for_the_rare_class(root: Path) -> None:
    """A head alone, on the same features: the rare class becomes likelier with its weight."""

    def bias_after(weights: Any) -> torch.Tensor:
        module = classifier(class_weights=weights, drop_path=0.0, mixup=0.0, cutmix=0.0)
        tiny_trainer(root.parent).fit(module, datamodule=image_data(root, steps=12, batch_size=12))
        return module.vit.get_parameter("head.bias").detach()

    plain, weighted = bias_after(None), bias_after([1.0, 1.0, 20.0])
    assert plain.argmax() == 0
    assert weighted.argmax() == 2
