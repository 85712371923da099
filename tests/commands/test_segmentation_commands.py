"""``finetune`` and ``predict`` on images with label maps, through the command line."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scenes import BACKBONE, COLOURS, draw_scene, plain_confusion, save, write_pairs, write_scenes
from tiny_runs import OPTIM, PRETRAIN, TRAINER, one_thread, recipe, same_tensors  # noqa: F401

from lit_splitmask.annotations.colours import read_table
from lit_splitmask.annotations.label_maps import read_map
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.cli import main
from lit_splitmask.modules import Segment

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

SEGMENT: dict[str, Any] = {
    "model": {"backbone": BACKBONE, "optim": {**OPTIM, "schedule": "poly"}, "channels": 8},
    "data": {
        "class_path": "SegmentationFolder",
        "init_args": {"image_size": 32, "batch_size": 4, "num_workers": 0, "num_epochs": 2, "budget": {"steps": 4}},
    },
    "trainer": TRAINER,
}
EXACT = ["--trainer.precision", "32-true", "--trainer.accelerator", "cpu"]
FINETUNE = ["finetune", "--recipe", "segment.yaml", "--data.root", "scenes", "--name"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: holds ``scenes`` with a test split, and ``segment.yaml``."""
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "scenes", {"train": 6, "val": 3, "test": 3})
    (tmp_path / "scenes" / "classes.txt").write_text("ground\ndisc\nbar\n")
    recipe(tmp_path / "segment.yaml", SEGMENT)
    return tmp_path


def test_a_segmenter_is_trained_and_evaluated_and_predicts(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FINETUNE, "s"]) == 0
    printed = capsys.readouterr().out
    for part in ("ground", "disc", "bar", "mIoU", "pixel accuracy", "runs/s/predict.yaml", "segmenter.safetensors"):
        assert part in printed
    assert "With fewer than 20 images they are too narrow." in printed
    assert re.search(r"Chance: mIoU [\d.]+ % and pixel accuracy [\d.]+ % by always answering ground", printed)
    report = json.loads(Path("runs/s/test.json").read_text())
    low, high = report["intervals"]["miou"]
    assert 0 <= low <= report["scores"]["test/miou"] <= high <= 1
    assert f"{100 * low:.1f} to {100 * high:.1f} %" in printed
    assert report["classes"] == list(report["iou"]) == ["ground", "disc", "bar"]
    assert Path("runs/s/predictions.png").stat().st_size > 1000
    about = load_weights("runs/s/segmenter.safetensors").info
    assert (about["class_names"], about["segmenter"]["void"]) == (report["classes"], 255)

    assert main(["predict", "--config", "runs/s/predict.yaml", "--data.root", "scenes", *EXACT]) == 0
    confusion = np.zeros((3, 3), dtype=np.int64)
    for number in range(9, 12):
        predicted = read_map(f"runs/s/predictions/images/test/{number:02d}.png")
        truth = read_map(f"scenes/annotations/test/{number:02d}.png")
        confusion += plain_confusion(np.where(truth == 255, -1, truth), predicted, 3)
    assert report["confusion"] == confusion.tolist()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    assert report["scores"]["test/miou"] == pytest.approx((confusion.diagonal() / union).mean(), abs=1e-6)

    again = ["predict", "--config", "runs/s/predict.yaml", "--data.root", "scenes", *EXACT]
    assert main([*again, "--predictions.path", "runs/s/predictions"]) == 1
    assert "predictions already exists" in capsys.readouterr().err
    assert main(again) == 0
    assert "these go to runs/s/predictions-2." in capsys.readouterr().out
    first, second = (sorted(Path("runs/s", name).rglob("*.png")) for name in ("predictions", "predictions-2"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second] != []
    assert main(["test", "--config", "runs/s/predict.yaml", "--data.root", "scenes", *EXACT]) == 0
    assert f"{report['scores']['test/miou']:.6f}"[:6] in (printed := capsys.readouterr().out)
    assert f"95 % intervals: mIoU {100 * low:.1f} to {100 * high:.1f} %" in printed
    assert "by always answering ground" in printed


def test_the_best_checkpoint_by_val_is_exported(work: Path) -> None:
    assert main([*FINETUNE, "s", "--data.budget.steps", "8", "--data.num_epochs", "4"]) == 0
    rows = [line.split(",") for line in Path("runs/s/metrics.csv").read_text().splitlines()]
    column = rows[0].index("val/miou")
    best = max(float(row[column]) for row in rows[1:] if row[column])
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "v"]
    assert main(["validate", "--config", "runs/s/predict.yaml", "--data.root", "scenes", *EXACT, *logger]) == 0
    found = next(Path("v").rglob("metrics.csv")).read_text().splitlines()
    assert float(found[1].split(",")[found[0].split(",").index("val/miou")]) == pytest.approx(best, abs=1e-4)


def test_images_without_maps_are_predicted(work: Path) -> None:
    assert main([*FINETUNE, "s"]) == 0
    save(Path("new/a.png"), draw_scene(30, 21, 77)[0])
    save(Path("new/b/c.png"), draw_scene(31, 40, 40)[0])
    done = ["predict", "--config", "runs/s/predict.yaml", "--data.root", "new", "--predictions.path", "maps"]
    assert main(done) == 0
    assert Image.open("maps/a.png").size == (77, 21)
    assert Image.open("maps/b/c.png").size == (40, 40)


def test_without_a_test_split_val_is_reported(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(work / "two", {"train": 6, "val": 3})
    assert main(["finetune", "--recipe", "segment.yaml", "--data.root", "two", "--name", "s"]) == 0
    assert json.loads(Path("runs/s/val.json").read_text())["split"] == "val"
    assert "slightly optimistic" in capsys.readouterr().out


def test_a_resumed_segmentation_is_bit_for_bit_the_uninterrupted_one(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(work / "segment.yaml", SEGMENT, budget={"steps": 6}, num_epochs=3)
    assert main([*FINETUNE, "whole"]) == 0
    original = Segment.training_step

    def interrupted(self: Segment, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 5:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "training_step", interrupted)
        assert main([*FINETUNE, "parts"]) == 130
    assert torch.load("runs/parts/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert main(["finetune", "--name", "parts", "--resume"]) == 0
    ours, theirs = (load_weights(f"runs/{name}/segmenter.safetensors").state for name in ("parts", "whole"))
    assert same_tensors(ours, theirs)
    last = [torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True) for name in ("parts", "whole")]
    assert same_tensors(last[0]["state_dict"], last[1]["state_dict"])
    reports = [json.loads(Path(f"runs/{name}/test.json").read_text()) for name in ("parts", "whole")]
    assert reports[0]["confusion"] == reports[1]["confusion"]


def test_a_segmenter_starts_from_pretraining_on_the_training_images(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**PRETRAIN, "model": {**PRETRAIN["model"], "backbone": BACKBONE}}
    recipe(work / "pretrain.yaml", settings)
    pretraining = ["pretrain", "--recipe", "pretrain.yaml", "--name", "p", "--data.root"]
    assert main([*pretraining, "scenes"]) == 1
    assert "--data.root scenes/images/train" in capsys.readouterr().err
    assert main([*pretraining, "scenes/images/train"]) == 0
    assert "--data.root scenes\n" in capsys.readouterr().out
    assert main([*FINETUNE, "s", "--weights", "runs/p/backbone.safetensors"]) == 0
    assert yaml.safe_load(Path("runs/s/config.yaml").read_text())["model"]["weights"] == "runs/p/backbone.safetensors"


def test_a_folder_of_label_maps_needs_no_recipe(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = [f"--model.backbone.{key}={value}" for key, value in BACKBONE.items()]
    options = "--data.image_size 32 --data.short_side 40 --data.batch_size 4 --data.num_workers 0 --data.budget.steps 2 --name s"
    assert main(["finetune", "--data.root", "scenes", *options.split(), *shape, "--trainer.accelerator", "cpu"]) == 0
    assert "Recipe segment_" in capsys.readouterr().out


def test_an_error_in_the_folder_leaves_no_run_behind(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.open("scenes/annotations/train/00.png").save("scenes/annotations/train/00.png", "JPEG")
    assert main([*FINETUNE, "s"]) == 1
    error = capsys.readouterr().err
    assert "00.png is a JPEG" in error
    assert "Traceback" not in error
    assert not Path("runs/s").exists()


def test_damaged_files_are_named_and_left_out(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("scenes/images/train/00.png").write_bytes(b"damaged")
    Path("scenes/annotations/train/01.png").write_bytes(b"damaged")
    assert main([*FINETUNE, "s"]) == 0
    assert caplog.text.count("scenes/images/train/00.png cannot be decoded") == 1
    assert caplog.text.count("scenes/annotations/train/01.png cannot be decoded") == 1
    assert "images/train/01.png, which belongs to it, is left out too" in caplog.text


def test_masks_of_0_and_255_are_trained_on_and_predicted(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for start, split, count in ((0, "train", 6), (10, "val", 3), (20, "test", 2)):
        write_pairs(
            work / "cracks",
            f"{split}/images/{{}}.jpg",
            f"{split}/masks/{{}}.png",
            count=count,
            start=start,
            values=[0, 255, 255, 0],
        )
    Path("cracks/classes.txt").write_text("whole\ncrack\n")
    assert main(["finetune", "--recipe", "segment.yaml", "--data.root", "cracks", "--name", "s"]) == 0
    assert "crack" in capsys.readouterr().out
    about = load_weights("runs/s/segmenter.safetensors").info
    assert (about["class_names"], about["segmenter"]["values"]) == (["whole", "crack"], [0, 255])
    assert yaml.safe_load(Path("runs/s/predict.yaml").read_text())["data"]["init_args"]["values"] == [0, 255]
    report = json.loads(Path("runs/s/test.json").read_text())

    Path("cracks/test/images/broken.jpg").write_bytes(b"damaged")
    assert main(["predict", "--config", "runs/s/predict.yaml", "--data.root", "cracks", *EXACT]) == 0
    written = sorted(
        path.relative_to("runs/s/predictions").as_posix() for path in Path("runs/s/predictions").rglob("*.png")
    )
    assert written == sorted(
        path.relative_to("cracks").with_suffix(".png").as_posix() for path in Path("cracks").rglob("??.jpg")
    )
    confusion = np.zeros((2, 2), dtype=np.int64)
    for number in (20, 21):
        stored = Image.open(f"runs/s/predictions/test/images/{number}.png")
        assert stored.mode == "L"
        predicted = np.asarray(stored)
        assert set(np.unique(predicted)) <= {0, 255}
        truth = np.asarray(Image.open(f"cracks/test/masks/{number}.png"))
        confusion += plain_confusion(truth.astype(int) // 255, predicted.astype(int) // 255, 2)
    assert report["confusion"] == confusion.tolist()

    Path("cracks/test/images/broken.jpg").unlink()
    assert main(["test", "--config", "runs/s/predict.yaml", "--data.root", "cracks", *EXACT]) == 0
    assert f"{report['scores']['test/miou']:.6f}"[:6] in capsys.readouterr().out


def test_maps_in_colours_are_predicted_in_the_colours_of_their_table(work: Path) -> None:
    write_pairs(work / "cvat", "JPEGImages/{}.jpg", "SegmentationClass/{}.png", count=6, values=COLOURS)
    Path("cvat/labelmap.txt").write_text("sky:0,0,0::\nground:40,40,160::\ndisc:220,60,50::\nbar:60,170,80::\n")
    assert main(["finetune", "--recipe", "segment.yaml", "--data.root", "cvat", "--name", "s"]) == 0
    assert json.loads(Path("runs/s/val.json").read_text())["classes"] == ["sky", "ground", "disc", "bar"]
    assert main(["predict", "--config", "runs/s/predict.yaml", "--data.root", "cvat"]) == 0
    table = read_table(Path("cvat/labelmap.txt"))
    for number in range(6):
        path = f"runs/s/predictions/JPEGImages/{number:02d}.png"
        assert read_map(path, table).tolist() == read_map(path).tolist()
