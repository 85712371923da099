"""Runs of an earlier version are resumed, built on and predicted with; ``old_runs/README.md`` says how they were made."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from coco_sets import write_set
from PIL import Image
from scenes import write_scenes
from tiny_runs import one_thread  # noqa: F401

from lit_splitmask.checkpoints import load_weights
from lit_splitmask.cli import main
from lit_splitmask.commands.compare import experiment
from lit_splitmask.config_files import up_to_date

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

OLD = Path(__file__).parent / "old_runs"
FINETUNE = ["finetune", "--config", "runs/classify/config.yaml", "--name"]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_folder: Callable[..., Path]) -> Path:
    """The current directory: holds the images ``shapes`` and the old runs under ``runs``."""
    monkeypatch.chdir(tmp_path)
    class_folder(per_class=8)
    for run in ("part", "whole", "classify-part", "classify", "segment", "detect"):
        shutil.copytree(OLD / run, tmp_path / "runs" / run)
    return tmp_path


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    """All weights as one vector."""
    return torch.cat([state[name].flatten() for name in sorted(state)])


def test_an_interrupted_pretraining_is_resumed_to_the_weights_that_it_would_have_had() -> None:
    start = flat(load_weights("runs/part/checkpoints/last.ckpt").state)
    assert main(["pretrain", "--name", "part", "--resume"]) == 0
    resumed = flat(load_weights("runs/part/backbone.safetensors").state)
    expected = flat(load_weights("runs/whole/backbone.safetensors").state)
    movement = (expected - start).norm()
    assert movement > 0
    assert (resumed - expected).norm() < 0.05 * movement  # equal bit for bit on the machine that made it
    assert Path("runs/part/metrics-until-step-4.csv").is_file()
    assert torch.load("runs/part/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


def test_an_interrupted_fine_tuning_is_resumed() -> None:
    assert main(["finetune", "--name", "classify-part", "--resume"]) == 0
    assert torch.load("runs/classify-part/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    assert json.loads(Path("runs/classify-part/test.json").read_text())["classes"] == ["disc", "square", "stripes"]


@pytest.mark.parametrize("weights", ["runs/whole/backbone.safetensors", "runs/part/checkpoints/last.ckpt"])
def test_fine_tuning_starts_from_weights(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FINETUNE, "new", "--weights", weights, "--model.drop_path=0"]) == 0
    assert load_weights("runs/new/classifier.safetensors").info["class_names"] == ["disc", "square", "stripes"]


def draw(task: str) -> str:
    """Draws the images that a task was trained on; returns their folder."""
    if task == "segment":
        write_scenes(Path("scenes"), {"train": 6, "val": 3})
        return "scenes"
    if task == "detect":
        write_set(Path("objects"), train=4, val=2)
        return "objects"
    return "shapes"


@pytest.mark.parametrize("task", ["classify", "segment", "detect"])
def test_the_settings_of_a_run_repeat_it(task: str) -> None:
    draw(task)
    settings = yaml.safe_load(Path(f"runs/{task}/config.yaml").read_text())
    command = ["finetune", "--config", f"runs/{task}/config.yaml", "--name", "again", "--data.budget.steps=1"]
    assert main([*command, "--data.num_epochs=1"]) == 0
    again = yaml.safe_load(Path("runs/again/config.yaml").read_text())
    new: dict[str, Any] = {"trained_blocks": None}
    if task == "classify":
        new |= {"auxiliary_weight": 1.0, "probe_head": False, "class_weights": None}
    model = up_to_date(settings)["model"]
    assert again["model"] == {**model, **new, "optim": {**model["optim"], "decay_positions": False}}
    assert again["trainer"] == settings["trainer"]


def predict(task: str) -> None:
    path = {"classify": "predictions.csv", "segment": "predictions", "detect": "predictions.json"}[task]
    images = ["--data.root", draw(task), "--predictions.path", path]
    assert main(["predict", "--config", f"runs/{task}/predict.yaml", *images]) == 0


def test_a_classifier_predicts_as_before() -> None:
    predict("classify")
    new, old = (path.read_text().splitlines() for path in (Path("predictions.csv"), OLD / "predictions.csv"))
    assert new[0] == f"{old[0]},error"
    rows = {row.split(",")[0]: row.split(",")[1:-1] for row in new[1:]}  # now of all images, not of test alone
    assert len(rows) == 24
    for row in old[1:]:
        file, predicted, *scores = row.split(",")
        assert rows[file][0] == predicted
        assert [float(p) for p in rows[file][1:]] == pytest.approx([float(p) for p in scores], abs=1e-4)


def test_a_segmenter_predicts_as_before() -> None:
    predict("segment")
    maps = sorted(OLD.glob("predictions/images/val/*.png"))
    assert len(maps) == 3
    for path in maps:
        old, new = np.asarray(Image.open(path)), np.asarray(Image.open(path.relative_to(OLD)))
        assert set(np.unique(old)) == {0, 1}
        assert (new != old).mean() < 0.005


def test_a_detector_predicts_as_before() -> None:
    predict("detect")
    found = [json.loads(path.read_text()) for path in (Path("predictions.json"), OLD / "predictions.json")]
    known = {one["image_id"] for one in found[1]}  # of val; the images of train are predicted too
    found[0] = [one for one in found[0] if one["image_id"] in known]
    new, old = ([(one["image_id"], one["category_id"], one["score"], *one["bbox"]) for one in boxes] for boxes in found)
    assert len(new) == len(old) > 0
    np.testing.assert_allclose(new, old, atol=0.01)


def test_a_classifier_is_probed() -> None:
    command = ["probe", "--weights", "runs/classify/classifier.safetensors", "--data.root", "shapes", "--out", "out"]
    assert main([*command, "--data.num_workers=0"]) == 0
    found = json.loads(Path("out/probe.json").read_text())
    assert (found["classes"], len(found["blocks"])) == (3, 1)


def test_a_finished_comparison_is_read_and_only_its_long_arm_is_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier long arm was tuned at the short length, and its length was not measured in turn."""
    shutil.copytree(OLD / "compared", "compared")
    shutil.copy(OLD / "compare.yaml", "compare.yaml")
    results = {path: json.loads(path.read_text()) for path in Path("compared").rglob("result.json")}
    trained = []
    run = experiment.run_finetuning

    def record(job: Any, **settings: Any) -> Any:
        trained.extend([] if job.result_file.is_file() else [job.folder.path.name])
        return run(job, **settings)

    monkeypatch.setattr(experiment, "run_finetuning", record)
    command = ["compare", "--recipe", "compare.yaml", "--data.root", "shapes", "--out", "compared", "--seeds", "2"]
    assert main(command) == 0
    (report,) = json.loads(Path("compared/comparison.json").read_text())["results"]
    assert [arm["name"] for arm in report["arms"]] == ["scratch", "scratch_long", "pretrained"]
    assert len(trained) == 4  # two points, two seeds
    assert all(name.startswith("scratch_long") for name in trained)
    assert {path: json.loads(path.read_text()) for path in results} == results
    assert report["difference"]["num_images"] == 0
    assert "without the randomness of the test images" in Path("compared/comparison.md").read_text()
