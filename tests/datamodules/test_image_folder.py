"""The user's own image folder: prepared, configured from the command line, without splits."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
from folder_data import MakeData, batches, noise, ready
from PIL import Image
from tiny_runs import BACKBONE, image_data, tiny_trainer

from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify

MakeFolder = Callable[..., Path]


def test_a_constructor_touches_no_disk(tmp_path: Path) -> None:
    ImageFolder("nowhere", index_dir=str(tmp_path / "runs"))
    assert not list(tmp_path.iterdir())


def test_without_splits_validation_is_empty_and_a_test_is_an_error(flat_folder: MakeFolder, tmp_path: Path) -> None:
    options = SplitOptions(val_share=0.0)
    data = ready(ImageFolder(str(flat_folder(5)), 16, num_workers=0, splits=options, index_dir=str(tmp_path / "runs")))
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match="no test split"):
        data.test_dataloader()
    assert sum(len(batch["label"]) for batch in data.predict_dataloader()) == 5
    assert data.num_classes == 0


@pytest.fixture
def parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageFolder, "data")
    return parser


def test_it_can_be_configured_from_the_command_line(parser: jsonargparse.ArgumentParser) -> None:
    arguments = [
        "--data.root=images",
        "--data.budget.steps=7",
        "--data.splits.val_share=0.3",
        "--data.splits.labels=none",
        "--data.augment=lit_splitmask.datamodules.PretrainAugment",
        "--data.augment.color_jitter=0.8",
    ]
    data = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert data.budget == Budget(steps=7)
    assert data.split_options == SplitOptions(val_share=0.3, labels="none")
    assert data.augment.color_jitter == 0.8


def test_a_layout_can_be_given_from_the_command_line(parser: jsonargparse.ArgumentParser) -> None:
    data = parser.instantiate_classes(parser.parse_args(["--data.root=images", "--data.splits.layout=subfolders"])).data
    assert data.split_options == SplitOptions(layout="subfolders")
    with pytest.raises(Exception, match="layout"):
        parser.parse_args(["--data.root=images", "--data.splits.layout=nonsense"])


@pytest.mark.parametrize(
    ("images", "maps"),
    [
        ("images", "masks"),
        ("train/images", "train/masks"),
        ("images/train", "annotations/train"),
        ("JPEGImages", "SegmentationClass"),
    ],
)
def test_label_maps_are_not_taken_for_images(tmp_path: Path, images: str, maps: str) -> None:
    root = tmp_path / "polyps"
    for folder in (images, maps):
        (root / folder).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(noise(number)).save(root / folder / f"{number}.png")
    data = ImageFolder(str(root), 16, num_workers=0, index_dir=str(tmp_path / "runs"))
    with pytest.raises(UserError, match=f"label maps beside its images.*--data.root {root / images}"):
        data.prepare_data()
    alone = ready(ImageFolder(str(root / images), 16, num_workers=0, index_dir=str(tmp_path / "runs")))
    assert len(alone.index.files) == 4


def test_a_folder_is_read_as_the_layout_says(tmp_path: Path, split_folder: MakeFolder) -> None:
    root = split_folder(site_a=4, site_b=4)
    settings: dict[str, Any] = {"num_workers": 0, "index_dir": str(tmp_path / "runs")}
    with pytest.raises(UserError, match="can be read in several ways"):
        ImageFolder(str(root), 16, **settings).prepare_data()
    data = ready(ImageFolder(str(root), 16, splits=SplitOptions(layout="subfolders"), **settings))
    assert data.class_names == ["disc", "square", "stripes"]
    with pytest.raises(UserError, match=r"layout=classes \(stored: subfolders\)"):
        ImageFolder(str(root), 16, splits=SplitOptions(layout="classes"), **settings).prepare_data()


@pytest.mark.parametrize("layout", ["class folders", "ambiguous", "split folders", "one too high"])
def test_a_trainer_predicts_every_image_in_python_too(layout: str, tmp_path: Path, class_folder: MakeFolder) -> None:
    module = Classify(backbone=ViTConfig(**BACKBONE))
    trained = image_data(class_folder(per_class=6), index_dir=str(tmp_path / "runs"))
    trainer = tiny_trainer(tmp_path)
    trainer.fit(module, datamodule=trained)
    root = tmp_path / "new"
    names = {
        "class folders": ["disc/{}.png", "square/{}.png"],
        "ambiguous": ["a/x/{}.png", "a/y/{}.png", "b/x/{}.png", "b/y/{}.png"],
        "split folders": ["train/{}.png", "test/{}.png", "{}.png"],
        "one too high": ["download/train/x/{}.png", "download/test/y/{}.png"],
    }[layout]
    files = [name.format(number) for name in names for number in range(5)]
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number)).save(root / name)
    data = image_data(root, index_dir=str(tmp_path / "new_runs"))
    outputs = tiny_trainer(tmp_path).predict(module, datamodule=data)
    indices = [index for batch in outputs for index in batch["index"].tolist()]
    assert sorted(data.predict_paths[index] for index in indices) == sorted(files)
    assert all(batch["probabilities"].shape[1] == 3 for batch in outputs)
    assert not (tmp_path / "new_runs").exists()
    trainer.test(module, datamodule=trained)  # the same images may be used further


def test_a_datamodule_predicts_and_trains_in_turn(tmp_path: Path, class_folder: MakeFolder) -> None:
    data = image_data(class_folder(per_class=6), index_dir=str(tmp_path / "runs"))
    module = Classify(backbone=ViTConfig(**BACKBONE))
    tiny_trainer(tmp_path).fit(module, datamodule=data)
    num_predicted = sum(len(b["index"]) for b in tiny_trainer(tmp_path).predict(module, datamodule=data))
    assert num_predicted == 18
    tiny_trainer(tmp_path).test(module, datamodule=data)
    assert data.class_names == ["disc", "square", "stripes"]
    trainer = tiny_trainer(tmp_path)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 6


def test_no_step_gives_a_warning(make_data: MakeData) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(batches(ready(make_data(num_workers=1)), 1)) == 1
