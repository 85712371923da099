"""Two processes learn and score numbers as one does: the validation on the way, and the test."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from replicas import draw

SCRIPT = """
import json
import sys
from pathlib import Path

folder, devices, tests = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, tests)

import torch
from lightning import Callback
from tiny_runs import BACKBONE, DATA, OPTIM, end_together, tiny_trainer

from lit_splitmask.datamodules import Budget, RegressionManifest
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Regress
from lit_splitmask.optim import OptimConfig

torch.set_num_threads(1)


class Watch(Callback):
    def __init__(self):
        self.losses, self.images, self.scores = [], [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.images.append(batch["index"].tolist())

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.scores.append({n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val")})


def fit(loss, **settings):
    data = RegressionManifest(
        str(folder / "list.csv"),
        target="wear",
        **{**DATA, "num_epochs": 2, "budget": Budget(steps=4), "index_dir": str(folder / "index")},
    )
    watch = Watch()
    strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    trainer = tiny_trainer(folder, callbacks=[watch], **strategy)
    module = Regress(
        backbone=ViTConfig(image_size=32, **BACKBONE), optim=OptimConfig(**OPTIM), drop_path=0.0, loss=loss
    )
    trainer.fit(module, datamodule=data)
    test = trainer.test(module, datamodule=data, verbose=False)[0]
    return {
        "rank": trainer.global_rank,
        "scores": [*watch.scores, test],
        "pairs": module.test_pairs,
        "unit": [float(module.target_mean), float(module.target_std)],
        "total": sum(float(p.detach().double().abs().sum()) for p in module.parameters()),
        "losses": watch.losses,
        "images": watch.images,
    }


found = {loss: fit(loss) for loss in ("smooth_l1", "mse")}
(folder / f"of{devices}-rank{found['mse']['rank']}.json").write_text(json.dumps(found))
end_together()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``list.csv`` with a number for each image, far from zero; two processes cannot share 5 val and 7 test images equally."""
    rows = []
    for number in range(28):
        draw(tmp_path / f"{number}.png", number)
        split = "train" if number < 16 else "val" if number < 21 else "test"
        rows.append(f"{number}.png,{split},{2000 + 0.5 * number * number}")
    (tmp_path / "list.csv").write_text("\n".join(["path,split,wear", *rows]))
    return tmp_path


def by_hand(pairs: list[list[float]]) -> dict[str, float]:
    """The scores of true and predicted numbers."""
    truth, predicted = zip(*pairs, strict=True)
    errors = [b - a for a, b in pairs]
    mean, squares = sum(truth) / len(truth), sum(error**2 for error in errors)
    assert len(set(predicted)) > 1
    return {
        "test/mae": sum(map(abs, errors)) / len(errors),
        "test/rmse": (squares / len(errors)) ** 0.5,
        "test/r2": 1 - squares / sum((value - mean) ** 2 for value in truth),
    }


@pytest.mark.slow  # it starts three processes, each of which imports torch: 20 s of CPU time
def test_two_processes_learn_and_score_numbers_as_one(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), str(folder), devices, str(Path(__file__).parents[1])],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    whole: dict[str, Any] = json.loads((folder / "of1-rank0.json").read_text())
    ranks = [json.loads((folder / f"of2-rank{rank}.json").read_text()) for rank in (0, 1)]
    for loss, one in whole.items():
        first, second = (rank[loss] for rank in ranks)
        assert first["unit"] == second["unit"] == one["unit"]
        assert [a + b for a, b in zip(first["images"], second["images"], strict=True)] == one["images"]
        assert [(a + b) / 2 for a, b in zip(first["losses"], second["losses"], strict=True)] == pytest.approx(
            one["losses"], rel=1e-3
        )
        assert first["losses"] != second["losses"]  # each process had its own half
        assert first["total"] == second["total"] == pytest.approx(one["total"], rel=1e-4)
        assert first["scores"] == second["scores"]
        assert [scores.keys() for scores in one["scores"]] == [
            *[{"val/mae", "val/rmse", "val/r2", "val/loss"}] * 2,
            {"test/mae", "test/rmse", "test/r2"},
        ]
        for two, expected in zip(first["scores"], one["scores"], strict=True):
            assert two == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert len(one["pairs"]) == 7
        assert one["scores"][-1] == pytest.approx(by_hand(one["pairs"]), rel=1e-3)
        both = sorted([*first["pairs"], *second["pairs"]])
        assert [truth for truth, _ in both] == [truth for truth, _ in sorted(one["pairs"])]  # every image once
