"""``finetune`` and ``predict`` on a folder in COCO's format, through ``main``."""

import json
from pathlib import Path

import pytest
import torch
from coco_sets import as_cvat, as_roboflow, change, load, write_set

from lit_splitmask.checkpoints import load_weights
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
    found = json.loads(Path("runs/d/predictions.json").read_text())
    images = {one["file_name"]: one["id"] for one in json.loads(Path("runs/d/predictions_images.json").read_text())}
    assert {name for name in images if name.startswith("train/")} == {f"train/train{n:03d}.png" for n in range(4)}
    known = {f"val/{image['file_name']}": image["id"] for image in load(root, "val")["images"]}
    assert {name: number for name, number in images.items() if name.startswith("val/")} == known
    assert {detection["image_id"] for detection in found} <= set(images.values())
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
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    # the parent folder has the boxes; no recipe is named
    assert f"lit-splitmask finetune --weights runs/p/backbone.safetensors --data.root {root}" in said
    weights = ["--weights", "runs/p/backbone.safetensors", "--name", "d"]
    assert main(["finetune", "--data.root", str(root), *weights, *HEADS.split()]) == 0  # the folder determines the task
    assert Path("runs/d/detector.safetensors").is_file()
    assert main(["finetune", "--task", "detection", "--data.root", str(root)]) == 1
    assert (
        "There is no task 'detection': --task is one of classify, detect, regress, segment" in capsys.readouterr().err
    )


TINY = [*f"{BACKBONE} {HEADS}".split(), "--name", "d"]


def test_an_export_of_roboflow_is_recognised_and_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = as_roboflow(write_set(tmp_path / "set", train=4, val=2))
    assert main(["finetune", "--data.root", str(root), *TINY]) == 0
    scores = json.loads(Path("runs/d/val.json").read_text())["scores"]
    assert {"box/AP", "mask/AP"} <= scores.keys()


def test_without_val_the_last_checkpoint_is_kept_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    root = as_cvat(write_set(tmp_path / "set", train=4))
    assert main(["finetune", "--data.root", str(root), "--data.val_share", "0", *TINY]) == 0
    assert caplog.text.count("the last checkpoint is kept") == 1
    last = torch.load("runs/d/checkpoints/last.ckpt", weights_only=True)
    exported = load_weights("runs/d/detector.safetensors").state
    name = next(name for name in exported if name.endswith("cls_score.bias"))
    ours = [value for key, value in last["state_dict"].items() if key.endswith("cls_score.bias")]
    assert torch.equal(exported[name], ours[0])
    assert not Path("runs/d/val.json").exists()


def test_an_annotation_file_that_is_given_makes_any_folder_one_for_detection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = as_cvat(write_set(tmp_path / "set", train=4))
    (root / "annotations" / "instances_default.json").rename("mine.json")
    command = ["finetune", "--data.root", str(root / "images"), "--data.annotations", "mine.json", *TINY]
    assert main(command) == 0
    assert Path("runs/d/detector.safetensors").is_file()


def test_boxes_that_cannot_be_meant_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_set(tmp_path / "set", train=4, val=2)
    boxes = [{**one, "bbox": [value / 100 for value in one["bbox"]]} for one in load(root)["annotations"]]
    change(root, "train", annotations=boxes)
    assert main(["finetune", "--data.root", str(root), *TINY]) == 1
    assert "so they are fractions of the images' sides" in capsys.readouterr().err
    assert not Path("runs").exists()
