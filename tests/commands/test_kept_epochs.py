"""Which epoch ``finetune`` keeps, when it stops, and the moving average, by their switches."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import FINETUNE, recipe

from lit_splitmask.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

COMMAND = ["finetune", "--recipe", "finetune.yaml", "--data.root", "shapes", "--name", "f"]


def checkpoint(name: str) -> dict[str, Any]:
    stored: dict[str, Any] = torch.load(f"runs/f/checkpoints/{name}.ckpt", weights_only=True)
    return stored


def test_a_run_stops_by_the_named_score_and_without_the_average_of_its_recipe(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = FINETUNE["trainer"] | {"callbacks": [{"class_path": "MovingAverage"}]}
    recipe(work / "finetune.yaml", {**FINETUNE, "trainer": trainer}, budget={"steps": 12}, num_epochs=6)
    still = ["--model.optim.lr", "1e-12", "--model.optim.min_lr", "0"]
    options = ["--early_stopping", "2", "--monitor", "val/macro_accuracy", "--moving_average", "0"]
    assert main([*COMMAND, *still, *options]) == 0
    assert "Stopped at step 6: val/macro_accuracy has not improved in 2 validations" in capsys.readouterr().err
    last = checkpoint("last")
    assert last["global_step"] == 6  # the first validation, and two more, of two steps each
    assert "current_model_state" not in last
    assert [key for key in last["callbacks"] if key.startswith("ModelCheckpoint{'monitor': 'val/macro_accuracy'")]
    assert checkpoint("best")["global_step"] == 2
    assert (work / "runs" / "f" / "test.json").is_file()


def test_the_moving_average_has_a_switch(work: Path) -> None:
    recipe(work / "finetune.yaml", FINETUNE, budget={"steps": 4}, num_epochs=2)
    assert main([*COMMAND, "--moving_average", "0.5", "--monitor", "val/loss"]) == 0
    last = checkpoint("last")
    assert last["global_step"] == 4  # nothing stops it
    assert last["current_model_state"]
    assert [key for key in last["callbacks"] if "'monitor': 'val/loss', 'mode': 'min'" in key]


def test_with_several_labels_the_mean_average_precision_decides(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(Path("shapes").rglob("*.png"))
    rows = [
        f"shapes/{file.relative_to('shapes')},{file.parent.name}{'|odd' if n % 2 else ''}"
        for n, file in enumerate(files)
    ]
    Path("list.csv").write_text("\n".join(["path,label", *rows]))
    given = ["--data", "Manifest", "--data.manifest", "list.csv", "--data.splits.labels", "several"]
    command = ["finetune", "--recipe", "finetune.yaml", *given, "--name", "f"]
    assert main(command) == 0
    assert [key for key in checkpoint("last")["callbacks"] if "'monitor': 'val/map', 'mode': 'max'" in key]
    report = json.loads(Path("runs/f/test.json").read_text())
    assert report["classes"] == ["disc", "odd", "square", "stripes"]
    assert 0 < report["scores"]["test/map"] <= 1
    printed = capsys.readouterr().out
    assert re.search(r"│ odd +│ [\d.]+ % +│ \d+ ", printed)  # the images that have it
    assert re.search(r"Chance: an mAP of [\d.]+ % by guessing", printed)


def test_a_score_that_is_not_measured_is_refused_with_those_that_are(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--monitor", "val/miou"]) == 1
    assert "--monitor is one of val/accuracy, val/macro_accuracy, val/loss" in capsys.readouterr().err
