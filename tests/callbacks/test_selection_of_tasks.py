"""Segmenters and detectors that are measured while they train: two processes choose the same checkpoints as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectors import detection_set
from scenes import write_scenes
from tiny_runs import one_thread  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]  # Lightning's advice on tiny runs

PROCESSES = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from detectors import coco, detector
from scenes import scene_data, segmenter
from tiny_runs import end_together, tiny_trainer
from lit_splitmask.callbacks import OverfitAwareCheckpoint
from lit_splitmask.selection import snapshot

torch.set_num_threads(1)
snapshot.BATCH_SIZE = 2  # the processes have different numbers of batches
kind, root, devices = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
folder = root.parent / f"of{devices}"
if kind == "segment":
    module, monitor = segmenter(dropout=0.0, drop_path=0.0), "val/miou"
    data = scene_data(root, num_epochs=4, image_size=32)
else:
    module, monitor = detector(), "val/mask/AP"
    data = coco(root, num_epochs=4)
measured = OverfitAwareCheckpoint(str(folder / "measured"), most_cost=1e9)
best = ModelCheckpoint(str(folder / "scored"), filename="best", monitor=monitor, mode="max")
strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
trainer = tiny_trainer(root.parent, callbacks=[measured, best], enable_checkpointing=True, **strategy)
trainer.fit(module, datamodule=data)
stored = {
    "history": measured.state_dict()["history"],
    "measured": measured.decision(trainer, module).best_step,
    "scored": torch.load(best.best_model_path, weights_only=True)["global_step"],
    "score": float(best.best_model_score),
    "monitored": monitor,
}
(root.parent / f"of{devices}-rank{trainer.global_rank}.json").write_text(json.dumps(stored))
end_together()
"""


@pytest.mark.parametrize("kind", ["segment", "detect"])
def test_two_processes_and_one_choose_the_same_checkpoints(kind: str, tmp_path: Path) -> None:
    # numbers of images that two processes cannot share equally
    make = {"segment": lambda root: write_scenes(root, {"train": 6, "val": 3}), "detect": detection_set}
    root = make[kind](tmp_path / "images")
    script, tests = tmp_path / "script.py", str(Path(__file__).parents[1])
    script.write_text(PROCESSES)
    said = ""
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), kind, str(root), devices, tests],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said += done.stderr
    one, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("of1-rank0", "of2-rank0", "of2-rank1")
    )
    assert first == second
    assert len(first["history"]) == 4
    for selected in ("measured", "scored"):
        kept = torch.load(tmp_path / "of2" / selected / "best.ckpt", weights_only=True)
        assert kept["global_step"] == first[selected]
    assert "sync_dist" not in said  # Lightning's advice for scores that differ between the processes
    if kind == "detect":  # each process samples regions of its own images, so the weights are not those of one process
        return
    assert first["measured"] == one["measured"]
    assert first["scored"] == one["scored"]
    assert first["score"] == pytest.approx(one["score"], abs=1e-4)
    for ours, theirs in zip(one["history"], first["history"], strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["values"] == pytest.approx(theirs["values"], rel=1e-3)
