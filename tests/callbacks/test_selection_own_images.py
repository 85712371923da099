"""What ``OverfitAwareCheckpoint`` says of images, labels and features of the user before training starts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from own_modules import SMALL, Images, Own, Plain, fit
from tiny_runs import one_thread  # noqa: F401
from torch import Tensor, nn
from torch.utils.data import ChainDataset, DataLoader

from lit_splitmask.errors import UserError
from lit_splitmask.selection.signals import RankMe

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


class Shaped(Own):
    """Features of a chosen shape."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def features(self, images: Tensor) -> Any:
        return self.make(images.float() / 255)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.flatten(1)[:, :6],
        lambda x: x.flatten(2).transpose(1, 2),
        lambda x: x.flatten(2).permute(0, 2, 1).reshape(-1, 64, 3),
        lambda x: x,
    ],
)
def test_tokens_and_maps_are_averaged(tmp_path: Path, make: Any) -> None:
    checkpoint = fit(tmp_path, Shaped(make), DataLoader(Images(40), batch_size=40), **SMALL)
    features = make(Images(40).images.float() / 255)
    averaged = {2: lambda x: x, 3: lambda x: x.mean(dim=1), 4: lambda x: x.mean(dim=(2, 3))}[features.ndim](features)
    expected = RankMe().measure(type("", (), {"held_out_features": (averaged, None)})())  # type: ignore[arg-type]
    assert checkpoint.history[0].values["rankme"] == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x.mean(dim=(1, 2, 3)), r"returns the shape \(2,\) for images of the shape \(2, 3, 8, 8\): return"),
        (lambda x: x.flatten(1)[:, :1], r"returns the shape \(2, 1\).* a single number per image"),
        (lambda x: x[None], r"returns the shape \(1, 2, 3, 8, 8\)"),
        (lambda x: x.flatten(1)[:1], r"returns the shape \(1, 192\).* with B=2 here"),
        (lambda x: (x, x), "returns a tuple, not a tensor"),
        (lambda x: x.permute(0, 2, 3, 1).repeat(1, 1, 1, 9), r"looks like \(B, H, W, D\).*mean\(dim=\(1, 2\)\)"),
        (
            lambda x: x @ torch.ones(7, 7),
            r"features\(images\) fails on images of the shape .*torch.uint8 \(RuntimeError",
        ),
    ],
)
def test_features_of_other_shapes_are_refused_before_training(tmp_path: Path, make: Any, message: str) -> None:
    module = Shaped(make)
    with pytest.raises(UserError, match=message):
        fit(tmp_path, module, DataLoader(Images(40), batch_size=40), **SMALL)
    assert module.global_step == 0
    assert not (tmp_path / "c").exists()


class Layers(Plain):
    """``features`` is a layer, as in torchvision's VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))


def test_a_layer_named_features_is_used_on_images_that_it_takes(tmp_path: Path) -> None:
    images = Images(40, dtype=torch.float32)
    given = {"trainer": {"max_epochs": 20}, "images": (images, images)}
    checkpoint = fit(tmp_path, Layers(), DataLoader(images, batch_size=40), **given)
    assert len(checkpoint.history) == 2
    assert 1 < checkpoint.history[0].values["rankme"] <= 8


def test_a_layer_named_features_is_explained_on_images_that_it_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"features is a layer here \(Sequential\).*another name.*define a method"):
        fit(tmp_path, Layers(), DataLoader(Images(40), batch_size=40), **SMALL)


@pytest.mark.parametrize(
    ("classes", "num_classes", "message"),
    [
        (3, 2, r"^num_classes=2 allows the labels 0 to 1, .* has the label 2: set num_classes .* at least 3"),
        (1, 2, r"^num_classes=2, but all training images to measure on have the label 0"),
    ],
)
def test_a_wrong_number_of_classes_is_reported_before_training(
    tmp_path: Path, classes: int, num_classes: int, message: str
) -> None:
    images, module = Images(40, classes=classes), Own()
    with pytest.raises(UserError, match=message):
        fit(tmp_path, module, DataLoader(images, batch_size=40), images=(images, images), num_classes=num_classes)
    assert module.global_step == 0


def test_negative_and_missing_labels_are_reported_before_training(tmp_path: Path) -> None:
    images, loader = Images(40), DataLoader(Images(40), batch_size=40)
    images.labels[7] = -1
    with pytest.raises(UserError, match=r"^num_classes=2, .* has the label -1: labels count from 0"):
        fit(tmp_path, Own(), loader, images=(Images(40), images), num_classes=2)
    images.kind = "image"
    with pytest.raises(UserError, match=r"^num_classes=2, but some of the images .* have no label"):
        fit(tmp_path, Own(), loader, images=(images, images), num_classes=2)


def test_the_datamodules_number_of_classes_is_named_as_such(tmp_path: Path) -> None:
    class Data(LightningDataModule):
        num_classes, all_labelled = 2, True

        def train_dataloader(self) -> Any:
            return DataLoader(Images(40, classes=3), batch_size=40)

        def split_images(self, split: str) -> Any:
            return Images(40, classes=3)

    with pytest.raises(UserError, match=r"^the datamodule's num_classes=2 .* has the label 2"):
        fit(tmp_path, Own(), Data())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (Images(4), r"images=…\) is a Images, not a pair"),
        ((DataLoader(Images(4)), DataLoader(Images(4))), r"has a DataLoader, .*loader\.dataset"),
        ((ChainDataset([]), Images(4)), "has a ChainDataset, which has no indices or no length"),
        ((Images(4), [{"img": torch.zeros(3, 8, 8)}]), "a dict with the keys img, without image"),
        ((Images(4), [("a.png", 1)]), "is a str, not a tensor"),
        ((Images(4), [torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)]), r"different shapes, such as \(3, 8, 8\)"),
    ],
)
def test_images_that_cannot_be_measured_are_reported_before_training(tmp_path: Path, images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(tmp_path, Own(), DataLoader(Images(40), batch_size=40), images=images)
