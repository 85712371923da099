"""The user's own image folder: prepared, configured from the command line, without splits."""

import warnings
from collections.abc import Callable
from pathlib import Path

import jsonargparse
import pytest
from folder_data import MakeData, batches, ready

from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions

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


def test_no_step_gives_a_warning(make_data: MakeData) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches(ready(make_data(num_workers=1)), 1)
