"""Datamodules over folders that are made for each test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folder_data import MakeData
from replicas import REPLICAS

from lit_splitmask import datamodules
from lit_splitmask.datamodules import ImageFolder
from lit_splitmask.datamodules.listed_data import ListedData

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_data(tmp_path: Path, class_folder: MakeFolder) -> MakeData:
    """Makes a datamodule over a folder of 30 images in 3 classes, of which 21 are for training."""
    root = class_folder(per_class=10)

    def make(**settings: Any) -> ImageFolder:
        small = {"image_size": 16, "batch_size": 8, "num_workers": 0, "index_dir": str(tmp_path / "runs")}
        return ImageFolder(str(root), **(small | settings))

    return make


@pytest.fixture
def make_published(tmp_path: Path) -> Callable[..., ListedData]:
    """Makes the datamodule of a published dataset, and writes its replica to ``tmp_path/data``."""

    def make(name: str, *, replica: bool = True, **settings: Any) -> ListedData:
        if replica:
            REPLICAS[name](tmp_path / "data")
        small = {"image_size": 16, "batch_size": 4, "num_workers": 0, "index_dir": str(tmp_path / "index")}
        data: ListedData = getattr(datamodules, name)(str(tmp_path / "data"), **(small | settings))
        return data

    return make
