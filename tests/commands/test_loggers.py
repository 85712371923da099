"""``--trainer.logger``: own loggers beside metrics.csv. W&B and MLflow are tested where they are installed."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lightning.pytorch.loggers.logger import Logger
from tiny_runs import FINETUNE, recipe

from lit_splitmask.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")

COMMAND = ["finetune", "--recipe", "finetune.yaml", "--data.root", "shapes", "--name", "f"]


class Remembers(Logger):
    """Keeps what it is given."""

    name, version = "remembers", 0
    settings: ClassVar[dict[str, Any]] = {}
    logged: ClassVar[set[str]] = set()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged.update(metrics)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self.settings.update(params)  # type: ignore[arg-type]


class Missing(Remembers):
    """As a logger whose package is not installed."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("Requirement 'paper>=1' not met.")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_folder: Any) -> None:
    monkeypatch.chdir(tmp_path)
    class_folder(per_class=6)
    recipe(Path("finetune.yaml"), FINETUNE)


def test_own_loggers_get_settings_and_metrics_and_metrics_csv_is_written_too() -> None:
    loggers = f"[{{class_path: {__name__}.Remembers}}, {{class_path: TensorBoardLogger, init_args: {{save_dir: tb}}}}]"
    assert main([*COMMAND, "--trainer.logger", loggers]) == 0
    assert Remembers.settings["data"]["init_args"]["batch_size"] == 8
    assert {"train/loss", "val/accuracy", "test/accuracy"} <= Remembers.logged
    assert list(Path("tb").rglob("events*"))
    assert "val/accuracy" in Path("runs/f/metrics.csv").read_text()


def test_without_loggers_no_metrics_are_written_or_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--trainer.logger", "false"]) == 0
    assert not Path("runs/f/metrics.csv").exists()
    assert "metrics.csv" not in capsys.readouterr().out


def test_a_logger_that_cannot_be_built_is_explained_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--trainer.logger", f"{__name__}.Missing"]) == 1
    assert capsys.readouterr().err.strip().endswith("trainer.logger cannot be built. Requirement 'paper>=1' not met.")


def test_wandb_writes_an_offline_run() -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    options = ["--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true", "--trainer.logger.save_dir", "."]
    command = [sys.executable, "-m", "lit_splitmask", *COMMAND, *options]  # W&B writes the file when the process ends
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    (written,) = Path("wandb").glob("offline-run-*/*.wandb")
    assert b"val/accuracy" in written.read_bytes()


def test_mlflow_writes_to_a_local_database() -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from mlflow import MlflowClient

    options = ["--trainer.logger", "MLFlowLogger", "--trainer.logger.tracking_uri", "sqlite:///mlflow.db"]
    assert main([*COMMAND, *options]) == 0
    client = MlflowClient("sqlite:///mlflow.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert "val/accuracy" in run.data.metrics
    assert run.data.params["data/init_args/batch_size"] == "8"


def test_lightnings_own_callbacks_are_given_by_command_line() -> None:
    monitor = ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks+=EarlyStopping"]
    stop = [
        "--trainer.callbacks.monitor=val/accuracy",
        "--trainer.callbacks.mode=max",
        "--trainer.callbacks.patience=1",
    ]
    longer = ["--data.budget.steps=60", "--data.num_epochs=20", "--model.optim.lr=1e-12"]
    assert main([*COMMAND, *longer, *monitor, *stop]) == 0
    rows = Path("runs/f/metrics.csv").read_text().splitlines()
    assert "lr-AdamW/pg1" in rows[0]
    assert len([row for row in rows if row]) < 30  # of the 60 steps, six were trained
