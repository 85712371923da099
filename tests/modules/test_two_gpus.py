"""Every module trains on two GPUs as on one; the same on two CPU processes, so that the test itself is known to work."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectors import detection_set
from scenes import write_scenes

MakeFolder = Callable[..., Path]

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import torch
from detectors import coco, detector
from scenes import scene_data, segmenter
from tiny_runs import classifier, end_together, image_data, pretrain_module, tiny_trainer

torch.set_num_threads(1)
kind, devices, root, accelerator = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[5]
make = {
    "pretrain": lambda: (pretrain_module(drop_path=0.0), image_data(root)),
    "classify": lambda: (classifier(drop_path=0.0), image_data(root)),
    "segment": lambda: (segmenter(dropout=0.0, drop_path=0.0), scene_data(root)),
    "detect": lambda: (detector(), coco(root)),
}
module, data = make[kind]()
strategy = {"strategy": "ddp"} if devices > 1 else {}
trainer = tiny_trainer(root.parent, accelerator=accelerator, devices=devices, use_distributed_sampler=False, **strategy)
trainer.fit(module, datamodule=data)
found = {name: float(value) for name, value in trainer.callback_metrics.items()}
found["weights"] = sum(float(p.detach().double().abs().sum()) for p in module.parameters())
found["steps"] = trainer.global_step
(root.parent / f"of{devices}-rank{trainer.global_rank}.json").write_text(json.dumps(found))
end_together()
"""


def run(kind: str, devices: int, root: Path, accelerator: str) -> list[dict[str, float]]:
    """What each process ends with."""
    script = root.parent / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), kind, str(devices), str(root), str(Path(__file__).parents[1]), accelerator],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((root.parent / f"of{devices}-rank{rank}.json").read_text()) for rank in range(devices)]


@pytest.mark.parametrize("kind", ["pretrain", "classify", "segment", "detect"])
@pytest.mark.parametrize(
    "accelerator", [pytest.param("gpu", marks=pytest.mark.gpu), pytest.param("cpu", marks=pytest.mark.slow)]
)
def test_two_devices_train_as_one_does(accelerator: str, kind: str, tmp_path: Path, class_folder: MakeFolder) -> None:
    if accelerator == "gpu" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    if kind == "segment":
        root = write_scenes(tmp_path / "scenes", {"train": 6, "val": 3})
    elif kind == "detect":
        root = detection_set(tmp_path / "set")
    else:
        root = class_folder(per_class=8)
    (one,) = run(kind, 1, root, accelerator)
    first, second = run(kind, 2, root, accelerator)
    assert first == second
    assert first["steps"] == one["steps"]
    if kind == "detect":  # the sampled regions differ
        assert first["weights"] == pytest.approx(one["weights"], rel=1e-2)
    else:
        assert first["weights"] == pytest.approx(one["weights"], rel=2e-3)
        assert first["train/loss"] == pytest.approx(one["train/loss"], rel=1e-2)
