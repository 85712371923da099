"""``finetune`` and ``predict`` on a folder in COCO's format, through ``main``."""

import json
from pathlib import Path

import pytest
from coco_sets import load, write_set

from lit_splitmask.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

BACKBONE = """--model.backbone.size tiny --model.backbone.embed_dim 32 --model.backbone.depth 4 --model.backbone.num_heads 2
--model.backbone.patch_size 8 --model.backbone.image_size 64"""
HEADS = """--model.detector.channels 16 --model.detector.box_features 24 --data.image_size 64 --data.max_size 96
--data.batch_size 2 --data.num_workers 0 --data.budget.steps 2 --data.num_epochs 1 --trainer.accelerator cpu
--trainer.precision 32-true"""


def test_a_detector_is_trained_and_evaluated_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_set(tmp_path / "set", train=4, val=2)
    command = [
        "finetune",
        "--data.root",
        str(root),
        "--recipe",
        "detect_cpu",
        "--name",
        "d",
        *f"{BACKBONE} {HEADS}".split(),
    ]
    assert main(command) == 0  # the recipe's datamodule determines the task
    printed = capsys.readouterr().out
    assert "box AP" in printed
    assert "predict --config runs/d/predict.yaml" in printed
    run = Path("runs/d")
    assert {"detector.safetensors", "detections.png", "val.json", "predict.yaml"} <= {
        path.name for path in run.iterdir()
    }
    scores = json.loads((run / "val.json").read_text())
    assert {"box/AP", "mask/AP", "box/AP50"} <= scores["scores"].keys()
    assert len(scores["classes"]) >= 2
    assert main(["predict", "--config", "runs/d/predict.yaml", "--data.root", str(root)]) == 0
    found = json.loads(Path("predictions.json").read_text())
    known = {image["id"] for image in load(root, "val")["images"]}
    assert {detection["image_id"] for detection in found} <= known
    plain = ["--data.root", str(root / "val"), "--predictions.path", "p.json"]
    assert main(["predict", "--config", "runs/d/predict.yaml", *plain]) == 0
    assert Path("p.json").is_file()
    assert not Path("lightning_logs").exists()
    assert not Path("config.yaml").exists()


def test_a_detector_starts_from_pretraining_on_the_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_set(tmp_path / "set", train=8, val=2)
    options = """--model.backbone.embed_dim 32 --model.backbone.depth 4 --model.backbone.num_heads 2 --data.image_size 32
    --model.objective.tokenizer.vocabulary 8 --data.batch_size 4 --data.num_workers 0 --data.budget.steps 2"""
    images = ["--data.root", str(root / "train"), "--name", "p"]
    assert main(["pretrain", "--recipe", "splitmask_cpu", *images, *options.split()]) == 0
    last = capsys.readouterr().out.splitlines()[-1].strip()  # the parent folder has the boxes; no recipe is named
    assert last == f"lit-splitmask finetune --weights runs/p/backbone.safetensors --data.root {root}"
    weights = ["--weights", "runs/p/backbone.safetensors", "--name", "d"]
    assert main(["finetune", "--data.root", str(root), *weights, *HEADS.split()]) == 0  # the folder determines the task
    assert Path("runs/d/detector.safetensors").is_file()
    assert main(["finetune", "--task", "detection", "--data.root", str(root)]) == 1
    assert "There is no task 'detection': --task is one of classify, detect, segment" in capsys.readouterr().err
