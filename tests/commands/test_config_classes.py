"""A configuration builds objects of a few kinds, and runs nothing else: wherever it is written, and under every command."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace
from lightning import Callback
from torch import nn

from lit_splitmask.augment.base import Augment
from lit_splitmask.cli import main
from lit_splitmask.commands import recipes
from lit_splitmask.commands.config_classes import check_classes
from lit_splitmask.errors import UserError
from lit_splitmask.masking import UniformMasking

RUNS = {"class_path": "os.system", "init_args": {"command": "touch ran"}}
STARTS = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}}
LAUNCHES = {"class_path": "torch.distributed.launcher.api.elastic_launch", "init_args": {"entrypoint": "touch"}}


def split_mask(**arguments: Any) -> dict[str, Any]:
    return {"model": {"objective": {"class_path": "SplitMask", "init_args": arguments}}}


def callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"trainer": {"callbacks": [{"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}]}}


def data(**arguments: Any) -> dict[str, Any]:
    return {"data": {"class_path": "ImageFolder", "init_args": arguments}}


SETTINGS = {
    "objective": {"model": {"objective": RUNS}},
    "objective as a class": {"model": {"objective": STARTS}},
    "tokenizer": split_mask(tokenizer=RUNS),
    "masking": split_mask(masking=RUNS),
    "auxiliary": {"model": {"objective": {"class_path": "Supervised", "init_args": {"auxiliary": RUNS}}}},
    "augmentation": data(augment=RUNS),
    "callback": {"trainer": {"callbacks": [RUNS]}},
    "callback as a class": {"trainer": {"callbacks": [STARTS]}},
    "function of a callback": callback("LambdaCallback", setup=RUNS),
    "function of a callback as a class": callback("LambdaCallback", setup=LAUNCHES),
    "logger": {"trainer": {"logger": RUNS}},
    "strategy": {"trainer": {"strategy": RUNS}},
    "plugin": {"trainer": {"plugins": [STARTS]}},
    "datamodule": {"data": RUNS},
}


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A recipe with other settings in the place of its own."""
    return {key: {**base.get(key, {}), **over.get(key, {})} for key in base | over}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_runs_nothing(name: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = yaml.safe_load(Path("pretrain.yaml").read_text())
    Path("evil.yaml").write_text(yaml.safe_dump(merged(own, SETTINGS[name])))
    Path("part.yaml").write_text(yaml.safe_dump(SETTINGS[name]))
    images = ["--data.root", "shapes", "--name", "x"]
    for arguments in (
        ["pretrain", "--recipe", "evil.yaml", *images],
        ["pretrain", "--recipe", "pretrain.yaml", "--config", "part.yaml", *images],
        ["plan", "--recipe", "evil.yaml", "--data.root", "shapes"],
    ):
        assert main(arguments) in (1, 2)
        error = capsys.readouterr().err
        assert "error: " in error
        assert "Traceback" not in error
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "option", ["--model.objective", "--model.objective.tokenizer", "--trainer.callbacks", "--data"]
)
def test_the_command_line_runs_nothing(option: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = ["--recipe", "pretrain.yaml", "--data.root", "shapes", "--name", "x"]
    assert main(["pretrain", *images, f"{option}={json.dumps(RUNS)}"]) in (1, 2)
    assert "error: " in capsys.readouterr().err
    assert not Path("ran").exists()


@pytest.mark.parametrize("place", ["model", "callback", "function of a callback", "loss"])
def test_predict_yaml_runs_nothing(place: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {
        "model": {"class_path": "Classify", "init_args": {"num_classes": 2}},
        "data": {"class_path": "ImageFolder", "init_args": {"root": "shapes"}},
    }
    if place == "model":
        settings["model"] = RUNS
    elif place == "loss":
        settings["model"]["init_args"]["relative_localisation"] = RUNS
    else:
        settings |= SETTINGS[place]
    Path("predict.yaml").write_text(yaml.safe_dump(settings))
    assert main(["predict", "--config", "predict.yaml"]) in (1, 2)
    assert "error: " in capsys.readouterr().err
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["objective", "tokenizer", "function of a callback"])
def test_a_comparison_runs_nothing(name: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("pretrain.yaml", "own.yaml")
    recipe = {"pretrain": {"recipe": "own.yaml", **SETTINGS[name]}, "finetune": "finetune.yaml", "grid": [{}]}
    Path("compare.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["compare", "--recipe", "compare.yaml", "--data.root", "shapes"]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not Path("ran").exists()


class OwnAugment(Augment):
    """An augmentation of a user, of no kind that is listed."""

    def build(self, image_size: int) -> Any:
        raise NotImplementedError


class OwnMasking(UniformMasking):
    """A masking of a user."""


class Part:
    """A user's class that a module's type names."""


class OwnModule(nn.Module):
    """A module of a user, with a part of a type of its own."""

    def __init__(self, part: Part, others: list[Part] | None = None, anything: Any = None) -> None:
        super().__init__()


class OwnCallback(Callback):
    """A callback of a user."""


def own(cls: type, **arguments: Any) -> Namespace:
    return Namespace(class_path=f"{cls.__module__}.{cls.__qualname__}", init_args=Namespace(**arguments))


def test_classes_of_a_users_own_are_built_where_they_are_meant() -> None:
    folder = Namespace(class_path="lit_splitmask.datamodules.ImageFolder", init_args=Namespace(augment=own(OwnAugment)))
    objective = Namespace(class_path="lit_splitmask.objectives.SplitMask", init_args=Namespace(masking=own(OwnMasking)))
    module = own(OwnModule, part=own(Part), others=[own(Part), own(Part)])
    check_classes(Namespace(model=Namespace(objective=objective), data=folder))
    check_classes(Namespace(model=module, trainer=Namespace(callbacks=[own(OwnCallback)])))
    with pytest.raises(UserError, match=r"model\.anything names .*Part, which is not a class that"):
        check_classes(Namespace(model=own(OwnModule, part=own(Part), anything=own(Part))))


@pytest.mark.parametrize("name", recipes.available())
def test_the_recipes_name_nothing_else(name: str) -> None:
    settings = recipes.read(name)
    check_classes(settings)
    with pytest.raises(UserError, match=r"os\.system, which is not a class"):
        check_classes({**settings, "planted": {"class_path": "os.system"}})


def test_a_text_that_is_no_import_path_is_left_to_the_parser() -> None:
    texts = {"model": {"class_path": "no.such.thing"}, "data": {"class_path": "?"}}
    check_classes(texts)
    with pytest.raises(UserError, match=r"os\.system, which is not a class"):
        check_classes({**texts, "other": {"class_path": "os.system"}})
