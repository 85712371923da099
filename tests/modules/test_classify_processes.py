"""Two processes have the class weights, the balanced batches and the mean average precision of one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from replicas import draw

MakeFolder = Callable[..., Path]

SCRIPT = """
import json
import sys
from pathlib import Path

folder, devices, tests = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, tests)

import torch
from lightning import Callback
from tiny_runs import DATA, classifier, end_together, image_data, tiny_trainer

from lit_splitmask.datamodules import Budget, Manifest
from lit_splitmask.images.index import SplitOptions

torch.set_num_threads(1)


class Losses(Callback):
    def __init__(self):
        self.losses, self.images = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.images.append(batch["index"].tolist())


def fit(data, **settings):
    watch = Losses()
    strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    trainer = tiny_trainer(folder, callbacks=[watch], **strategy)
    module = classifier(drop_path=0.0, mixup=0.0, cutmix=0.0, class_weights="balanced", **settings)
    trainer.fit(module, datamodule=data)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val")}
    scores |= trainer.test(module, datamodule=data, verbose=False)[0]
    total = sum(float(p.detach().double().abs().sum()) for p in module.parameters())
    return {
        "rank": trainer.global_rank,
        "scores": scores,
        "weights": module.mix.class_weights.tolist(),
        "total": total,
        "losses": watch.losses,
        "images": watch.images,
    }


several = Manifest(
    str(folder / "list.csv"),
    splits=SplitOptions(labels="several"),
    **{**DATA, "budget": Budget(steps=4), "index_dir": str(folder / "index")},
)
found = {"balance": fit(image_data(folder / "shapes", steps=4, balance=0.5)), "several": fit(several)}
(folder / f"of{devices}-rank{found['balance']['rank']}.json").write_text(json.dumps(found))
end_together()
"""


@pytest.fixture
def folder(tmp_path: Path, split_folder: MakeFolder) -> Path:
    """Unbalanced classes as ``shapes``, and ``list.csv`` with several labels; two processes cannot share val and test equally."""
    root = split_folder("shapes", train=8, val=3, test=3)
    for name, kept in (("square", 4), ("stripes", 2)):
        for file in sorted((root / "train" / name).iterdir())[kept:]:
            file.unlink()
    cells = ["rust|scab", "scab", "rust", "frog eye|rust", "scab"]
    rows = []
    for number in range(26):
        draw(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{'train' if number < 16 else 'val' if number < 21 else 'test'},{cells[number % 5]}")
    (tmp_path / "list.csv").write_text("\n".join(["path,split,label", *rows]))
    return tmp_path


@pytest.mark.slow  # it starts three processes, each of which imports torch: 20 s of CPU time
def test_two_processes_weigh_draw_and_score_as_one(folder: Path) -> None:
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
    whole = json.loads((folder / "of1-rank0.json").read_text())
    ranks = [json.loads((folder / f"of2-rank{rank}.json").read_text()) for rank in (0, 1)]
    for kind, one in whole.items():
        two = [rank[kind] for rank in ranks]
        assert two[0]["weights"] == two[1]["weights"] == one["weights"]
        assert len(set(one["weights"])) > 1
        assert [a + b for a, b in zip(two[0]["images"], two[1]["images"], strict=True)] == one["images"]
        for step, loss in enumerate(one["losses"]):
            assert (two[0]["losses"][step] + two[1]["losses"][step]) / 2 == pytest.approx(loss, rel=1e-3)
        assert two[0]["losses"] != two[1]["losses"]  # each process had its own half
        assert two[0]["total"] == two[1]["total"] == pytest.approx(one["total"], rel=1e-4)
        assert two[0]["scores"] == two[1]["scores"]
        assert two[0]["scores"] == pytest.approx(one["scores"], rel=1e-3, abs=1e-4)
    assert {"val/map", "test/map"} <= whole["several"]["scores"].keys()
    assert "val/accuracy" in whole["balance"]["scores"]
