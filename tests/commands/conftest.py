"""A current directory for each test of the commands, and settings that train within a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import FINETUNE, PRETRAIN, one_thread, recipe  # noqa: F401

from lit_splitmask.cli import main

MakeFolder = Callable[..., Path]


def write_noise(root: Path, classes: tuple[str, ...], per_class: int) -> None:
    """Writes images of smooth noise, all different, into class folders."""
    generator = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            noise = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            noise.resize((40, 48)).save(root / name / f"{number}.png")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_folder: MakeFolder) -> Path:
    """The current directory: holds the images ``shapes``, ``pretrain.yaml`` and ``finetune.yaml``."""
    monkeypatch.chdir(tmp_path)
    class_folder(per_class=8)
    recipe(tmp_path / "pretrain.yaml", PRETRAIN)
    recipe(tmp_path / "finetune.yaml", FINETUNE)
    return tmp_path


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pre-training run ``runs/p`` with its images, made once for all tests of a file."""
    folder = tmp_path_factory.mktemp("finished")
    write_noise(folder / "shapes", ("a", "b"), 8)
    settings = recipe(folder / "pretrain.yaml", PRETRAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["pretrain", "--recipe", settings, "--data.root", "shapes", "--name", "p"]) == 0
    return folder / "runs" / "p"


@pytest.fixture
def config_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: holds configuration files of every kind."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "more.yaml": "data: {init_args: {batch_size: 4}}",
        "mine.yaml": "recipe: splitmask_cpu\ndata: {init_args: {batch_size: 4}}",
        "run.yaml": "recipe: splitmask_cpu\nruns_dir: runs",
        "no_recipe.yaml": "recipe: null",
        "list.yaml": "[1, 2]",
        "broken.yaml": "{a: [1",
    }
    for name, text in texts.items():
        Path(name).write_text(text)
    return tmp_path
