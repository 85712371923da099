"""``lit-splitmask plan``: its report, its estimates, and that it writes nothing else."""

import json
import logging
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_sets import write_set
from deep_images import deep_folder
from PIL import Image
from replicas import REPLICAS, draw
from scenes import write_scenes

from lit_splitmask.cli import main
from lit_splitmask.commands import recipe_choice
from lit_splitmask.commands.plan import cost as plan_cost
from lit_splitmask.commands.plan import report as plan_report
from lit_splitmask.commands.plan.cost import Job, StepCost
from lit_splitmask.loading.budget import Budget, resolve, whole_epochs
from lit_splitmask.units import size

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

COST = StepCost("cpu", 4, 5, 0.25, 1000, 300, 80, parameters=10, weights_bytes=40, checkpoint_bytes=120)
PLAN = ["plan", "shapes", "--recipe", "pretrain.yaml"]


@pytest.fixture
def untimed(work: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Replaces timing by ``COST``; returns the jobs that would have been timed."""
    jobs: list[Job] = []
    monkeypatch.setattr(plan_cost, "time_alone", lambda job: (jobs.append(job), COST)[1])
    return jobs


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_plan_as_json_writes_only_the_index_of_the_splits(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_in(work)
    assert main([*PLAN, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    written = files_in(work)
    assert {name for name in written if name not in before} == {
        next(str(path.relative_to(work)) for path in work.glob("runs/data/shapes-*/splits.npz"))
    }
    assert {name: written[name] for name in before} == before
    assert plan["images"]["counts"] == {
        "train": {"disc": 5, "square": 5, "stripes": 5},
        "val": {"disc": 1, "square": 1, "stripes": 1},
        "test": {"disc": 2, "square": 2, "stripes": 2},
    }
    for stage, images_at_once in (("pretraining", 8), ("finetuning", 64)):
        assert plan[stage]["timed_images"] == images_at_once
        assert plan[stage]["step_seconds"] > 0
        assert plan[stage]["total_seconds"] == pytest.approx(plan[stage]["steps"] * plan[stage]["step_seconds"])
        assert 2**26 < plan[stage]["memory_bytes"] < 2**36
    assert plan["pretraining"]["steps"] == 6
    assert plan["pretraining"]["device"] == "cpu"
    assert plan["finetuning"]["parameters"] < plan["pretraining"]["parameters"]
    assert plan["no_finetuning"] is None


def test_the_tables_have_classes_recipes_and_commands(untimed: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(PLAN) == 0
    text = capsys.readouterr().out
    for part in ("disc", "square", "stripes", "PNG 24", "pretrain.yaml", "No duplicates", "h:mm:ss"):
        assert part in text
    assert "lit-splitmask pretrain --recipe pretrain.yaml --data.root shapes" in text
    assert "lit-splitmask finetune --recipe finetune_few --weights runs/pretrain-shapes/backbone.safetensors" in text
    assert "scaled linearly to 8 per device" in text


def test_what_both_trainings_say_of_the_images_is_said_once(
    untimed: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    deep_folder(Path("xrays"))
    caplog.set_level(logging.INFO)
    for _ in range(2):  # and again in the next command
        caplog.clear()
        assert main(["plan", "xrays", "--recipe", "pretrain.yaml"]) == 0
        assert sum("Window: " in message for message in caplog.messages) == 1
    assert not any("2 class folders" in message for message in caplog.messages)  # the report has it


def test_budgets_are_those_of_the_datamodule(untimed: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    pretraining = resolve(Budget(steps=6), num_images=15, batch_size=8)
    finetuning = whole_epochs(resolve(Budget(passes=300), num_images=15, batch_size=1024), num_epochs=100)
    for stage, schedule, warmup in (("pretraining", pretraining, 0.2), ("finetuning", finetuning, 0.2)):
        planned = plan[stage]
        assert (
            planned["steps"],
            planned["passes"],
            planned["images_seen"],
            planned["batch_size"],
            planned["num_images"],
        ) == (
            schedule.steps,
            schedule.passes,
            schedule.images,
            schedule.batch_size,
            15,
        )
        assert planned["warmup_steps"] == round(warmup * schedule.steps)
        assert planned["step_seconds"] == pytest.approx(0.25 * schedule.batch_size / 4)
        assert planned["memory_bytes"] == 1300 + 20 * schedule.batch_size
    assert [job.num_images for job in untimed] == [8, 64]


def test_disk_counts_a_shared_cache_once(untimed: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    pixels = sum(np.asarray(Image.open(path)).size for path in Path("shapes").rglob("*.png"))
    assert plan["pretraining"]["cache_bytes"] == plan["finetuning"]["cache_bytes"] == pixels
    assert plan["disk_bytes"] == pixels + (4 * 120 + 40) + (2 * 120 + 40)


def test_without_labels_fine_tuning_is_not_planned(
    untimed: list[Job], flat_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    flat_folder()
    assert main(["plan", "--data.root", "flat_shapes", "--recipe", "pretrain.yaml"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Fine-tuning is not planned. Classification needs at least two classes" in text
    assert "lit-splitmask finetune" not in text
    assert len(untimed) == 1


@pytest.mark.parametrize(("write", "task"), [(write_scenes, "segment"), (write_set, "detect")])
def test_annotated_images_are_said_to_be_for_their_task(
    write: Callable[[Path], Path], task: str, untimed: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(Path("annotated"))
    images = "annotated/images/train" if task == "segment" else "annotated/train"
    assert main(["plan", images, "--recipe", "pretrain.yaml"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Fine-tuning is not planned. These images have annotations, on which finetune --data.root {root}" in text
    assert f"trains to {task};" in text


def test_label_maps_are_not_taken_for_images(untimed: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(Path("scenes"))
    for command in ("pretrain", "probe", "embed"):
        assert main([command, "--data.root", "scenes"]) == 1
        assert "label maps beside its images" in capsys.readouterr().err, command
    assert not list(Path().glob("runs/*/*.csv"))


def test_a_plan_says_what_the_folder_is_read_as_and_why(
    untimed: list[Job], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (Path("shapes") / "IMG_1.HEIC").write_bytes(b"")
    assert main(PLAN) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "shapes is read as: 3 classes, because its folders are disc, square, stripes." in text
    assert "Not read: 1 HEIC" in text
    assert "were set aside as test" in caplog.text
    assert "Evidence" not in caplog.text  # the report has said it
    assert main([*PLAN, "--json", "--layout", "flat", "--data.index_dir", "flat"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["reading"]["layout"] == "flat"
    assert plan["images"]["counts"] == {"train": {"(no label)": 22}, "val": {"(no label)": 2}}
    assert "--layout flat" in plan["commands"][0]


def test_images_with_label_maps_are_planned_without_the_maps(
    untimed: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(Path("scenes"))
    assert main(["plan", "scenes", "--recipe", "pretrain.yaml"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "scenes is read as: images with label maps in train and val" in text
    assert "lit-splitmask pretrain --recipe pretrain.yaml --data.root scenes/images/train" in text
    assert "lit-splitmask finetune --weights runs/pretrain-train/backbone.safetensors --data.root scenes" in text


def test_a_plan_of_a_list(untimed: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{path.name},{path.parent.name}" for path in sorted(Path("shapes").rglob("*.png"))]
    for path in Path("shapes").rglob("*.png"):
        path.rename(Path("shapes") / path.name)
    for folder in ("disc", "square", "stripes"):
        (Path("shapes") / folder).rmdir()
    Path("shapes/train.csv").write_text("\n".join(["image_id,label", *rows]))
    assert main(PLAN) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "shapes/train.csv lists these images" in text
    assert main(["plan", "--data.manifest", "shapes/train.csv", "--recipe", "pretrain.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert sum(plan["images"]["counts"]["train"].values()) == 15
    assert plan["commands"][1].endswith("--data Manifest --data.manifest shapes/train.csv")


def test_annotations_that_are_not_read_are_named_with_the_way(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("shapes").rglob("*.png"):
        path.with_suffix(".txt").write_text("0 0.5 0.5 0.1 0.1\n")
    for command in ("plan", "finetune"):
        assert main([command, "--data.root", "shapes"]) == 1
        said = capsys.readouterr().err
        assert "YOLO" in said
        assert "supervision" in said


def test_too_little_memory_and_too_much_time_are_noted(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_cost, "time_alone", lambda job: replace(COST, base_bytes=2**60, seconds=1e6))
    assert main(PLAN) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Pre-training would take more memory than the" in text
    assert "Fine-tuning would take more memory than the" in text
    assert "Full pre-training would take" in text
    assert "pretrain --recipe pretrain.yaml --data.root shapes --data.budget.images" in text


def test_what_the_images_are_is_printed_before_steps_are_timed(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before: list[str] = []
    monkeypatch.setattr(plan_cost, "time_alone", lambda job: (before.append(capsys.readouterr().out), COST)[1])
    assert main(PLAN) == 0
    assert "duplicates" in before[0].lower()
    assert "seconds per step" not in before[0]
    assert "seconds per step" in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [False, True])
def test_a_plan_without_timing(
    as_json: bool, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_cost, "time_alone", lambda job: pytest.fail("steps were timed"))
    assert main([*PLAN, "--no_timing", *(["--json"] if as_json else [])]) == 0
    text = capsys.readouterr().out
    assert "lit-splitmask pretrain --recipe pretrain.yaml --data.root shapes" in text
    if as_json:
        plan = json.loads(text)
        assert main([*shlex.split(plan["commands"][0])[1:], "--print_config"]) == 0
        assert (plan["pretraining"]["steps"], plan["pretraining"]["total_seconds"]) == (6, None)
    else:
        assert "seconds per step" not in text


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: lit-splitmask plan")
    assert all(option in text for option in ("--data.root", "--data.index_dir", "--recipe", "--json"))


def test_the_recipe_is_chosen_as_pretrain_does(untimed: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "shapes", "--data.index_dir", "elsewhere", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    choice = recipe_choice.choose(24, 48, torch.cuda.is_available())
    assert (plan["pretraining"]["recipe"], plan["finetuning"]["recipe"]) == (
        choice.name,
        recipe_choice.for_few_labels(recipe_choice.finetuning(choice.name), 5).name,
    )
    assert "labels per class, fewer than 50" in plan["finetuning"]["reason"]
    assert list(Path("elsewhere").glob("shapes-*/splits.npz"))
    assert not Path("runs").exists()
    assert "--data.index_dir elsewhere" in plan["commands"][0]


@pytest.mark.parametrize(("name", "finetuning"), [("StanfordCars", "finetune_cars"), ("COCO", None)])
def test_a_published_dataset_is_planned_with_its_recipe(
    untimed: list[Job], capsys: pytest.CaptureFixture[str], name: str, finetuning: str | None
) -> None:
    REPLICAS[name](Path("data"))
    recipe = {"StanfordCars": "splitmask_cars", "COCO": "splitmask_coco"}[name]
    assert main(["plan", "data", "--recipe", recipe, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["pretraining"]["recipe"] == recipe
    assert plan["pretraining"]["num_images"] == 6
    assert (plan["finetuning"] or {}).get("recipe") == finetuning
    assert plan["images"]["empty_classes"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one folder"),
        (["shapes", "--data.root", "shapes"], "one folder"),
        (["no/such"], "does not exist"),
        (["--data.root", "no/such"], "does not exist"),
        (["pretrain.yaml"], "is a file"),
        (["empty"], "holds no images"),
        (["shapes", "--recipe", "nonsense"], "There is no recipe 'nonsense'"),
        (["shapes", "--recipe", "compare_cpu"], "recipe for compare"),
        (["broken", "--recipe", "pretrain.yaml"], "can be read"),
    ],
)
def test_errors_of_plan_are_one_paragraph(
    arguments: list[str], says: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/a.jpg").write_bytes(b"no image")
    assert main(["plan", *arguments]) == 1
    output = capsys.readouterr()
    paragraph = output.err[output.err.index("error: ") :].strip()
    assert says in paragraph
    assert "\n" not in paragraph
    assert "Traceback" not in output.err
    assert output.out == ""
    assert not Path("runs").exists()


def test_only_the_largest_and_smallest_of_many_classes_are_listed() -> None:
    counts = {"train": {f"c{n:03d}": n + 1 for n in range(100)}, "val": {f"c{n:03d}": 0 for n in range(100)}}
    rows = plan_report._class_rows(counts)
    assert [row[0] for row in rows[:2]] == ["c099", "c098"]
    assert rows[15][0] == "… 70 classes in between …"
    assert rows[-1] == ["c000", "1", "0"]
    assert len(rows) == 31


@pytest.mark.parametrize(
    ("pretraining", "expected"),
    [
        ("splitmask", "finetune"),
        ("splitmask_cpu", "finetune_cpu"),
        ("splitmask_tiny_images", "finetune_tiny_images"),
        ("splitmask_small_set", "finetune"),
        ("my/own.yaml", "finetune"),
    ],
)
def test_the_fine_tuning_recipe_goes_with_the_pre_training_recipe(pretraining: str, expected: str) -> None:
    assert recipe_choice.finetuning(pretraining).name == expected


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (3 * 2**30, "3 GiB"), (2**41, "2,048 GiB")],
)
def test_sizes_are_in_binary_units(num_bytes: int, expected: str) -> None:
    assert size(num_bytes) == expected


def test_a_list_with_several_labels_an_image_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = ["rust|scab", "scab", "rust", "frog eye|rust"]
    for number in range(12):
        draw(tmp_path / f"{number}.png", number)
    rows = [f"{number}.png,{('train', 'val', 'test')[number // 4]},{cells[number % 4]}" for number in range(12)]
    Path("list.csv").write_text("\n".join(["path,split,label", *rows]))
    several = ["plan", "--data.manifest", "list.csv", "--data.splits.labels", "several", "--no_timing"]
    assert main([*several, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["images"]["counts"]["train"] == {"frog eye": 1, "rust": 3, "scab": 2}
    assert plan["images"]["images"] == {"train": 4, "val": 4, "test": 4}
    assert plan["reading"]["meaning"] == "3 classes, any number per image, from a list"
    assert all("--data.splits.labels several" in command for command in plan["commands"])
    assert len(plan["commands"]) == 2
    assert main(several) == 0
    assert "│ all      │ 4     │ 4   │ 4    │" in capsys.readouterr().out
    assert main(["plan", ".", "--data.splits.labels", "several"]) == 1
    assert "Give --data.manifest" in capsys.readouterr().err
