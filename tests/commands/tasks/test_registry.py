"""Which task ``finetune`` trains for."""

from pathlib import Path

import pytest
import yaml
from coco_sets import write_set
from scenes import write_scenes

from lit_splitmask import datamodules, modules
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.cli import main
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.tasks.registry import (
    TASKS,
    Task,
    choose_task,
    root_for_finetuning,
    task_for_recipe,
    task_of,
)
from lit_splitmask.errors import UserError


@pytest.fixture
def annotated(work: Path) -> Path:
    """The current directory: holds also images with label maps, images with boxes, and a file of settings."""
    write_scenes(work / "scenes", {"train": 2, "val": 1})
    write_set(work / "objects", train=2, val=1)
    (work / "segment.yaml").write_text("data: {class_path: SegmentationFolder}")
    (work / "lr.yaml").write_text("model: {optim: {lr: 1.0e-3}}")
    return work


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        (["--data.root", "scenes"], "segment"),
        (["--data.root", "objects"], "detect"),
        (["--data.root", "shapes"], "classify"),
        (["--data", "SegmentationFolder", "--data.root", "x"], "segment"),
        (["--data=lit_splitmask.datamodules.SegmentationFolder"], "segment"),
        (["--data", "CocoDetection", "--data.root", "scenes"], "detect"),
        (["--data", "ImageFolder", "--data.root", "scenes"], "classify"),
        (["--recipe", "segment_cpu"], "segment"),
        (["--recipe", "detect_cpu"], "detect"),
        (["--recipe", "finetune_cpu", "--data.root", "scenes"], "classify"),
        (["--config", "segment.yaml"], "segment"),
        (["--config", "segment.yaml", "--config", "lr.yaml"], "segment"),
        (["--config", "lr.yaml", "--data.root", "objects"], "detect"),
        (["--recipe", "finetune_cpu", "--config", "segment.yaml"], "segment"),
        (["--task", "classify", "--data.root", "scenes"], "classify"),
        (["--task=segment", "--data.root", "elsewhere"], "segment"),
        ([], "classify"),
    ],
)
def test_the_task_follows_from_what_is_given(arguments: list[str], task: str, annotated: Path) -> None:
    request = Request.read("finetune", arguments)
    assert choose_task(request).name == task
    assert not any(option.startswith("--task") for option in request.settings())


def test_images_without_labels_are_refused_with_the_way(annotated: Path) -> None:
    with pytest.raises(UserError, match=r"pass --data.root scenes"):
        choose_task(Request.read("finetune", ["--data.root", "scenes/images"]))
    Path("shapes/flat").mkdir()
    for path in Path("shapes/disc").iterdir():
        path.rename(Path("shapes/flat") / path.name)
    with pytest.raises(UserError, match=r"its own folder .* CSV"):
        choose_task(Request.read("finetune", ["--data.root", "shapes/flat"]))


@pytest.mark.parametrize(("layout", "task"), [("segmentation", "segment"), ("coco", "detect"), ("classes", "classify")])
def test_a_layout_overrules_what_the_folder_looks_like(layout: str, task: str, work: Path) -> None:
    request = Request.read("finetune", ["--data.root", "shapes", "--layout", layout])
    assert choose_task(request).name == task
    in_settings = [option for option in request.settings() if "layout" in option]
    assert in_settings == (["--data.splits.layout=classes"] if task == "classify" else [])


def test_a_resumed_run_keeps_its_task(work: Path) -> None:
    folder = work / "elsewhere" / "s"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"data": {"class_path": "lit_splitmask.datamodules.CocoDetection"}})
    )
    request = Request.read("finetune", ["--name", "s", "--runs_dir", "elsewhere", "--resume"])
    assert choose_task(request).name == "detect"


def test_a_task_that_does_not_exist(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="classify, detect, regress, segment"):
        choose_task(Request.read("finetune", ["--task", "paint"]))
    assert main(["finetune", "--recipe", "finetune.yaml", "--data.root", "shapes", "--task", "paint"]) == 1
    assert "no task 'paint'" in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_a_task_has_a_module_and_datamodules_that_exist(task: Task) -> None:
    assert task_of(task.module.__new__(task.module)) is task
    for name in (*task.datamodules, task.usual_datamodule):
        assert hasattr(datamodules, name)


def test_other_modules_and_recipes_are_for_classification() -> None:
    assert task_of(object()).name == "classify"
    assert TASKS["classify"].module is modules.Classify
    assert [task_for_recipe(name).name for name in ("mae_cpu", "segment_own", "detect_cpu", "regress")] == [
        "classify",
        "segment",
        "detect",
        "regress",
    ]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("scenes/images/train", "scenes"),
        ("objects/train", "objects"),
        ("shapes/disc", "shapes/disc"),
        ("scenes", "scenes"),
    ],
)
def test_fine_tuning_uses_the_annotations_beside_the_images(images: str, expected: str, annotated: Path) -> None:
    assert root_for_finetuning(images) == expected


def test_settings_without_a_datamodule_get_that_of_the_task(work: Path) -> None:
    """A file of other settings, no recipe, and weights: image size and channels are those of the weights."""
    shape = [f"--model.backbone.{option}" for option in ("embed_dim=32", "depth=1", "num_heads=2", "patch_size=8")]
    images = ["--data.root", "shapes", "--data.num_workers=0", "--data.budget.steps=1", "--data.batch_size=4"]
    assert main(["pretrain", *images, *shape, "--data.image_size=40", "--name", "p", "--recipe", "splitmask_cpu"]) == 0
    Path("lr.yaml").write_text("model: {optim: {lr: 1.0e-3}}")
    weights = ["--weights", "runs/p/backbone.safetensors", "--data.augment", "FinetuneAugment"]
    assert main(["finetune", "--config", "lr.yaml", *images, *weights, "--name", "f"]) == 0
    assert load_weights("runs/f/classifier.safetensors").info["timm"]["img_size"] == 40
