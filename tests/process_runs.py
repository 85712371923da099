"""The same small training on one process and on two, each in a program of its own, and what must be equal."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from tiny_runs import end_together, tiny_trainer

BEGINNING = """
import sys
from pathlib import Path

folder, devices, tests = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, tests)

from process_runs import fit, save
"""
"""What a script may use: ``folder``, ``devices``, :func:`fit` and :func:`save`."""


class Watch(Callback):
    """Notes the loss and the images of each step, and the scores of each validation."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.images: list[list[int]] = []
        self.scores: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        self.images.append(batch["index"].tolist())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            found = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.scores.append({name: value for name, value in found.items() if name.startswith("val")})


def fit(folder: Path, devices: int, module: LightningModule, data: LightningDataModule) -> dict[str, Any]:
    """Trains and tests; what this process saw: its losses and images, all scores, the sum of all weights."""
    torch.set_num_threads(1)
    watch = Watch()
    strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    trainer = tiny_trainer(folder, callbacks=[watch], **strategy)
    trainer.fit(module, datamodule=data)
    test = dict(trainer.test(module, datamodule=data, verbose=False)[0])
    return {
        "rank": trainer.global_rank,
        "scores": [*watch.scores, test],
        "total": sum(float(p.detach().double().abs().sum()) for p in module.parameters()),
        "losses": watch.losses,
        "images": watch.images,
    }


def save(folder: Path, devices: int, found: dict[str, dict[str, Any]]) -> None:
    """Writes what this process found, by the name of the training, and ends together with the other."""
    rank = next(iter(found.values()))["rank"]
    (folder / f"of{devices}-rank{rank}.json").write_text(json.dumps(found))
    end_together()


def run(folder: Path, script: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs a script on one process and on two: what the one found, and what each of the two did."""
    path = folder / "script.py"
    path.write_text(BEGINNING + script)
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(path), str(folder), devices, str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, *two = (
        json.loads((folder / name).read_text()) for name in ("of1-rank0.json", "of2-rank0.json", "of2-rank1.json")
    )
    return one, two


def check_same_training(one: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    """Two processes share the images of each step of one, and end with its weights."""
    assert [a + b for a, b in zip(first["images"], second["images"], strict=True)] == one["images"]
    means = [(a + b) / 2 for a, b in zip(first["losses"], second["losses"], strict=True)]
    assert means == pytest.approx(one["losses"], rel=1e-3)
    assert first["losses"] != second["losses"]  # each process had its own half
    assert first["total"] == second["total"] == pytest.approx(one["total"], rel=1e-4)
    assert first["scores"] == second["scores"]
