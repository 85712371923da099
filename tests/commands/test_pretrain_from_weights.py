"""``pretrain --weights``."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_training_commands import PRETRAIN_COMMAND, interrupt_at
from tiny_runs import BACKBONE, same_tensors

from lit_splitmask.checkpoints import load_weights, save_backbone
from lit_splitmask.cli import main
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.start import fit_to_weights
from lit_splitmask.commands.training import starting_settings
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.modules import Pretrain

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def file(work: Path) -> Path:
    torch.manual_seed(1)
    path = work / "given.safetensors"
    save_backbone(path, ViT(ViTConfig(**{**BACKBONE, "image_size": 48})))
    return path


def settings(*options: str) -> dict[str, Any]:
    request = Request.read("pretrain", options)
    chosen = starting_settings(request, None)
    fit_to_weights(request, chosen)
    return chosen


def test_a_built_in_recipe_takes_the_shape_and_the_images_of_the_weights(file: Path) -> None:
    chosen = settings("--recipe", "mae", "--weights", str(file))
    assert BACKBONE.items() <= chosen["model"]["backbone"].items()
    assert chosen["data"]["init_args"]["image_size"] == 48
    assert chosen["data"]["init_args"]["channels"] == 3


def test_a_named_size_is_not_overruled_silently(file: Path) -> None:
    chosen = settings("--recipe", "mae", "--weights", str(file), "--model.backbone.size", "base")
    assert "embed_dim" not in chosen["model"]["backbone"]


@pytest.mark.slow
def test_a_resumed_run_from_weights_is_bit_for_bit_the_whole_one_without_their_file(
    file: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--weights", str(file)]
    assert main([*PRETRAIN_COMMAND, "whole", *given]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, Pretrain, 4, KeyboardInterrupt())
        assert main([*PRETRAIN_COMMAND, "parts", *given]) == 130
    file.unlink()
    assert main(["pretrain", "--name", "parts", "--resume", "--weights", "other.safetensors"]) == 1
    assert "started from" in capsys.readouterr().err
    assert main(["pretrain", "--name", "parts", "--resume"]) == 0
    ours, theirs = (load_weights(work / "runs" / name / "backbone.safetensors").state for name in ("parts", "whole"))
    assert same_tensors(ours, theirs)


def test_an_own_recipe_that_contradicts_the_weights_is_refused(
    file: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = yaml.safe_load((work / "pretrain.yaml").read_text())
    own["model"]["backbone"]["depth"] = 3
    (work / "pretrain.yaml").write_text(yaml.safe_dump(own))
    assert main([*PRETRAIN_COMMAND, "p", "--weights", str(file)]) == 1
    assert "does not fit this backbone" in capsys.readouterr().err


def test_a_missing_file_is_refused_before_the_images_are_read(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--recipe", "mae", "--data.root", "shapes", "--weights", "none.safetensors"]) == 1
    assert "does not exist" in capsys.readouterr().err
