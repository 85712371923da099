"""Regression by commands: from a list of numbers to predictions, files and a page; what is refused, with the way to go."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import FINETUNE, recipe

from lit_splitmask.cli import main
from lit_splitmask.commands import recipes
from lit_splitmask.commands.pretrain import command_to_finetune
from lit_splitmask.commands.request import Request

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

SMALL = """--model.backbone.embed_dim 32 --model.backbone.depth 2 --model.backbone.num_heads 2 --model.backbone.patch_size 8
--model.backbone.size tiny --data.image_size 32 --data.batch_size 4 --data.num_workers 0 --data.num_epochs 2 --data.budget.steps 4
--trainer.accelerator cpu --trainer.precision 32-true"""
LIST = ["--data.manifest", "list.csv", "--data.target", "wear"]


@pytest.fixture
def listed(work: Path) -> Path:
    """The current directory, with a list of the images and a number for each."""
    files = sorted(Path("shapes").rglob("*.png"))
    rows = [f"{file},{n % 12 + 0.5},{file.parent.name}" for n, file in enumerate(files)]
    Path("list.csv").write_text("\n".join(["path,wear,label", *rows]))
    return work


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 1
    return capsys.readouterr().err


def test_a_list_becomes_a_network_predictions_files_and_a_page(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", "--task", "regress", *LIST, *SMALL.split(), "--name", "r"]) == 0
    printed = capsys.readouterr().out
    assert "Recipe regress" in printed
    report: dict[str, Any] = json.loads(Path("runs/r/test.json").read_text())
    with Path("list.csv").open() as file:
        wear = {row["path"]: float(row["wear"]) for row in csv.DictReader(file)}
    assert 0 < report["scores"]["test/mae"] < 12
    assert report["median"] in set(wear.values()) | {n + 1.0 for n in range(12)}
    sentence = f"Always predicting the median of the training images, {report['median']:.4g}, has an MAE of"
    assert f"{sentence} {report['mae_of_median']:.4g}" in printed
    assert Path("runs/r/predicted.png").is_file()
    assert "ModelCheckpoint{'monitor': 'val/mae', 'mode': 'min'" in str(_callbacks("r"))
    command = "predict --config runs/r/predict.yaml --data.root DIR"
    assert f"To predict the numbers of other images:\n  lit-splitmask {command}" in printed
    assert main(command.replace("DIR", "shapes").split()) == 0
    with Path("runs/r/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"path", "wear", "error"}
    assert len(rows) == len(wear)
    assert all(0 < float(row["wear"]) < 12 for row in rows)
    assert main(["report", "runs/r"]) == 0
    page = Path("runs/r/report.html").read_text()
    assert "Predictions of wear are off by" in page
    assert sentence in page
    assert "against their true numbers" in page
    assert main(["test", "--config", "runs/r/predict.yaml", "--data", "RegressionManifest", *LIST]) == 0
    assert "test/mae" in capsys.readouterr().out


def _callbacks(name: str) -> list[str]:
    import torch

    return list(torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["callbacks"])


@pytest.mark.parametrize("name", ["regress", "regress_cpu"])
def test_a_regression_recipe_trains(name: str, listed: Path) -> None:
    assert main(["finetune", "--recipe", name, *LIST, *SMALL.split(), "--name", "r", "--monitor", "val/r2"]) == 0
    config = yaml.safe_load(Path("runs/r/config.yaml").read_text())
    assert config["data"]["class_path"].endswith("RegressionManifest")
    assert "ModelCheckpoint{'monitor': 'val/r2', 'mode': 'max'" in str(_callbacks("r"))


def test_recipes_for_numbers_leave_brightness_and_size_alone() -> None:
    for name in ("regress", "regress_cpu"):
        images = recipes.read(name)["data"]["init_args"]
        assert images["augment"]["init_args"] == {"min_scale": 0.7, "rand_augment": None, "erase": 0.0}
        assert images["crop_ratio"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("finetune shapes --task regress", "Regression reads a CSV file with a column of numbers, but shapes is given alone"),
        ("finetune --task regress", "give --data.manifest FILE.csv --data.target COLUMN"),
        ("finetune --task regress --data.manifest list.csv", "its columns of numbers are wear"),
        ("finetune LIST --recipe finetune_cpu", "The recipe finetune_cpu is for --task classify, not for regress"),
        ("finetune shapes --recipe regress_cpu --task classify", "regress_cpu is for --task regress, not for classify"),
        ("finetune LIST --model.mixup 0.8", "--model.mixup is for classes, not for numbers: leave it out"),
        ("finetune LIST --model.class_weights balanced", "--model.class_weights is for classes, not for numbers"),
        ("finetune LIST --auxiliary MAE", "--model.auxiliary is for classes, not for numbers"),
        ("finetune LIST --data.balance 1", "data.balance=1 is for classes, not for numbers"),
        ("finetune LIST --monitor val/accuracy", "--monitor is one of val/mae, val/rmse, val/r2, val/loss"),
        ("compare shapes LIST", "compare needs accuracies, which predicted numbers do not have"),
        ("plan LIST", "plan reads the images and classes of a list, not numbers"),
        ("probe LIST --data RegressionManifest", "probe does not use numbers"),
        ("embed LIST --data RegressionManifest", "embed does not use numbers. For the images alone, give --data Manifest"),
        ("shard --data RegressionManifest LIST --out s", "shard writes one class per image, not several labels or a number"),
        ("finetune --data Manifest --data.manifest plain.csv --recipe finetune.yaml", "--task regress --data.target COLUMN"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_for_numbers_is_refused_with_the_way_to_go(
    arguments: str, message: str, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = [line.rpartition(",")[0] for line in Path("list.csv").read_text().splitlines()]
    Path("plain.csv").write_text("\n".join(plain))
    recipe(listed / "finetune.yaml", FINETUNE)
    assert message in fails(arguments.replace("LIST", " ".join(LIST)).split(), capsys)


def test_after_pretraining_on_a_list_of_numbers_the_next_command_is_for_them() -> None:
    given = ["--data", "RegressionManifest", *LIST]
    command = command_to_finetune(
        Path("w.safetensors"), Request.read("pretrain", ["--recipe", "splitmask_cpu", *given])
    )
    assert command == ["lit-splitmask", "finetune", "--weights", "w.safetensors", *given]
