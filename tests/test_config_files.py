"""Configuration files: those of earlier versions are brought up to date, and unreadable ones are refused."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning import LightningDataModule

from lit_splitmask import datamodules
from lit_splitmask.config_files import public_path, read_settings, settings_in, up_to_date
from lit_splitmask.errors import UserError

PUBLIC_CLASSES = [name for name in datamodules.__all__ if inspect.isclass(getattr(datamodules, name))]


@pytest.mark.parametrize(
    "moved",
    [
        "folder.ImageFolder",
        "manifest.Manifest",
        "published.Food101",
        "segmentation.SegmentationFolder",
        "coco.CocoDetection",
    ],
)
def test_class_paths_in_private_modules_become_public(moved: str, tmp_path: Path) -> None:
    old = {"data": {"class_path": f"lit_splitmask.datamodules.{moved}", "init_args": {"root": "a", "image_size": 32}}}
    (tmp_path / "predict.yaml").write_text(yaml.safe_dump(old))
    data = read_settings(tmp_path / "predict.yaml")["data"]
    assert data == {
        "class_path": f"lit_splitmask.datamodules.{moved.partition('.')[2]}",
        "init_args": {"root": "a", "image_size": 32},
    }
    assert hasattr(datamodules, data["class_path"].rpartition(".")[2])


@pytest.mark.parametrize(
    "class_path",
    [
        "ImageFolder",
        "lit_splitmask.datamodules.ImageFolder",
        "lit_splitmask.objectives.SplitMask",
        "mine.ImageFolder",
        "mine.lit_splitmask.datamodules.folder.ImageFolder",
        "lit_splitmask.datamodules.folder.ImageFolder.Inner",
        "lit_splitmask_extra.datamodules.folder.ImageFolder",
    ],
)
def test_other_class_paths_stay(class_path: str) -> None:
    settings = {"class_path": class_path, "init_args": {"crop_ratio": 0.9, "eval_batch_size": 4}}
    assert up_to_date(settings) == settings


@pytest.mark.parametrize("package", ["", "lit_splitmask.datamodules.", "lit_splitmask.datamodules.coco."])
def test_settings_that_no_longer_exist_are_dropped(package: str) -> None:
    boxes = {"class_path": f"{package}CocoDetection", "init_args": {"root": "a", "crop_ratio": 0.9}}
    maps = {
        "class_path": f"{package}SegmentationFolder",
        "init_args": {"root": "b", "crop_ratio": 0.9, "eval_batch_size": 4},
    }
    assert up_to_date(boxes)["init_args"] == {"root": "a"}
    assert up_to_date(maps)["init_args"] == {"root": "b"}
    assert boxes["init_args"] == {"root": "a", "crop_ratio": 0.9}, "the given settings were changed"


def test_settings_of_a_users_class_of_the_same_name_stay() -> None:
    settings = {"class_path": "mine.CocoDetection", "init_args": {"crop_ratio": 0.9}}
    assert up_to_date(settings) == settings


def test_nested_lists_and_dicts_are_brought_up_to_date() -> None:
    def config(class_path: str) -> dict[str, Any]:
        data = {"class_path": class_path, "init_args": {"augment": {"class_path": "MultiCrop"}, "pool": ["a", "b"]}}
        return {"grid": [[{"data": data}, 3], {"callbacks": [data, None]}], "seed": 1, "nothing": {}}

    assert up_to_date(config("lit_splitmask.datamodules.folder.ImageFolder")) == config(
        "lit_splitmask.datamodules.ImageFolder"
    )


@pytest.mark.parametrize("settings", [{"class_path": 3}, {"class_path": "CocoDetection", "init_args": None}, {}, []])
def test_odd_settings_stay(settings: Any) -> None:
    assert up_to_date(settings) == settings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2", "is not valid YAML"),
        (b"a: 2001-99-99", "is not valid YAML"),
        (b"a: \x00", "is not valid YAML"),
        (b"name: Stra\xdfe", "is not UTF-8 text"),
        (b"- a\n- b", "holds no settings"),
        (b"just text", "holds no settings"),
        (b"", "holds no settings"),
    ],
)
def test_other_files_are_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_bytes(content)
    for read in (read_settings, settings_in):
        with pytest.raises(UserError, match=rf"odd\.yaml {message}"):
            read(str(tmp_path / "odd.yaml"))


def test_a_missing_file_or_a_folder_is_refused_where_a_file_is_needed(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=rf"configuration {path} cannot be read .*Check the path"):
            read_settings(path)


@pytest.mark.parametrize("config", ["splitmask_own", '{"seed": 1}', "a" * 10_000, ""])
def test_a_text_that_is_no_file_has_no_settings(config: str) -> None:
    assert settings_in(config) == {}


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_a_class_can_be_imported_from_its_public_path(name: str) -> None:
    exported = getattr(datamodules, name)
    path = public_path(exported)
    module, _, attribute = path.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is exported
    if issubclass(exported, LightningDataModule):
        assert path == f"lit_splitmask.datamodules.{name}"
    assert up_to_date({"class_path": path}) == {"class_path": path}


def test_a_class_that_no_package_exports_has_the_path_of_its_module() -> None:
    assert public_path(yaml.YAMLError) == "yaml.YAMLError"
    assert public_path(UserError) == "lit_splitmask.errors.UserError"


def test_a_class_that_cannot_be_imported_has_no_public_path() -> None:
    class Local:
        pass

    with pytest.raises(ValueError, match="cannot be imported"):
        public_path(Local)
