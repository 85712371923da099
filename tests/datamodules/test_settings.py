"""Constructor arguments of datamodules, as editors, type checkers and the command line see them."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from jsonargparse import ArgumentParser

from lit_splitmask import datamodules
from lit_splitmask.datamodules import settings
from lit_splitmask.datamodules.crop_data import CropData
from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.datamodules.joint_data import JointData
from lit_splitmask.datamodules.own_data import OwnData

CLASSES = [
    cls
    for name in datamodules.__all__
    if inspect.isclass(cls := getattr(datamodules, name)) and issubclass(cls, ImageData)
]
TYPED = [
    (ImageData, settings.ImageSettings, {"image_size"}),
    (JointData, settings.JointSettings, {"image_size"}),
    (CropData, settings.CropSettings, {"image_size"}),
    (FileData, settings.FileSettings, {"root", "image_size"}),
    (OwnData, settings.OwnSettings, {"root", "image_size"}),
]
WRONG = """from lit_splitmask.datamodules.image_folder import ImageFolder
from lit_splitmask.datamodules.segmentation_folder import SegmentationFolder
ImageFolder("photos", batch_size=64)
ImageFolder("photos", batch_sise=64)
ImageFolder("photos", batch_size="64")
SegmentationFolder("streets", crop_ratio=1.0)
"""


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_signature_shows_the_arguments_of_the_command_line_with_their_defaults(cls: type) -> None:
    parameters = inspect.signature(cls).parameters
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    parser = ArgumentParser()
    added = parser.add_class_arguments(cls, None)
    assert {name.partition(".")[0] for name in added} == set(parameters)
    assert parser.get_defaults()["seed"] == parameters["seed"].default


@pytest.mark.parametrize(("cls", "typed", "own"), TYPED, ids=lambda value: getattr(value, "__name__", ""))
def test_the_typed_settings_are_those_of_the_constructors(cls: type, typed: Any, own: set[str]) -> None:
    types = {name: parameter.annotation for name, parameter in inspect.signature(cls).parameters.items()}
    assert get_type_hints(typed) == {name: kind for name, kind in types.items() if name not in own}


@pytest.mark.slow
def test_mypy_finds_wrong_arguments(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (extra dev)")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(WRONG)
    options = [
        "--config-file=",
        "--ignore-missing-imports",
        "--follow-imports=skip",
        f"--cache-dir={tmp_path / 'cache'}",
    ]
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "mypy", *options, str(snippet), "lit_splitmask/datamodules"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout
    lines = [line for line in found.splitlines() if "snippet.py" in line and "error" in line]
    assert [int(line.split("snippet.py:")[1].split(":")[0]) for line in lines] == [4, 5, 6], found
