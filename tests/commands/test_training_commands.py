"""``pretrain``, ``finetune``, ``predict`` and LightningCLI's commands, through ``main``."""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pages import printed_commands
from tiny_runs import FINETUNE, recipe, same_tensors

from lit_splitmask.callbacks import EstimateTime
from lit_splitmask.checkpoints import config_of, load_weights, read_safetensors
from lit_splitmask.cli import main
from lit_splitmask.commands import ahead
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.training import with_run
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import load_index
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.tokenizers import KMeans

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

PRETRAIN_COMMAND = ["pretrain", "--recipe", "pretrain.yaml", "--data.root", "shapes", "--name"]
FINETUNE_COMMAND = ["finetune", "--recipe", "finetune.yaml", "--data.root", "shapes", "--name"]


def interrupt_at(patch: pytest.MonkeyPatch, module: type[Any], step: int, error: BaseException) -> None:
    """Raises an exception when a training reaches ``step``."""
    original = module.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            raise error
        return original(self, batch, batch_idx)

    patch.setattr(module, "training_step", training_step)


def metrics(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_pretraining_writes_all_its_files(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PRETRAIN_COMMAND, "p"]) == 0
    folder = work / "runs" / "p"
    files = {"config.yaml", "backbone.safetensors", "codebook.safetensors", "halves.png", "words.png", "metrics.csv"}
    assert files <= {file.name for file in folder.iterdir()}
    assert "lit-splitmask finetune --weights runs/p/backbone.safetensors" in capsys.readouterr().out
    codebook, _ = read_safetensors(folder / "codebook.safetensors")
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(codebook["codebook"], checkpoint["state_dict"]["objective.tokenizer.codebook"])
    assert checkpoint["global_step"] == 6
    logged = metrics(folder / "metrics.csv")
    assert [row["step"] for row in logged if row["train/loss"]] == ["0", "1", "2", "3", "4", "5"]
    assert len([row for row in logged if row["val/loss"]]) == 2
    assert float(next(row["words/used"] for row in logged if row["words/used"])) == 16


def test_pretraining_says_which_checkpoint_it_keeps(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = ["--data.budget.steps=120", "--trainer.callbacks+=OverfitAwareEarlyStopping"]
    assert main([*PRETRAIN_COMMAND, "p", *longer]) == 0
    printed = capsys.readouterr().out
    selection = json.loads((work / "runs" / "p" / "checkpoints" / "selection.json").read_text())
    assert f"Keep step {selection['best_step']}" in printed
    assert f"Evaluations: {len(selection['history'])}, " in printed
    assert load_weights(work / "runs" / "p" / "backbone.safetensors").info["step"] == selection["best_step"]
    assert (work / "runs" / "p" / "checkpoints" / "selection.png").exists()


def test_images_of_a_manifest_are_trained_on(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"shapes/{file.relative_to('shapes')},{file.parent.name}" for file in sorted(Path("shapes").rglob("*.png"))]
    Path("parts.csv").write_text("\n".join(["path,label", *rows]))
    given = ["--data", "Manifest", "--data.manifest", "parts.csv"]
    assert main(["pretrain", "--recipe", "pretrain.yaml", *given]) == 0
    weights = "runs/pretrain-parts/backbone.safetensors"
    assert f"lit-splitmask finetune --weights {weights} {' '.join(given)}" in capsys.readouterr().out
    assert main(["finetune", "--recipe", "finetune.yaml", "--weights", weights, *given]) == 0
    assert Path("runs/finetune-parts/classifier.safetensors").is_file()
    assert main(["predict", "--config", "runs/finetune-parts/predict.yaml", "--data.root", "shapes"]) == 0


def test_one_channel_images_from_pretraining_to_predictions(work: Path) -> None:
    assert main([*PRETRAIN_COMMAND, "p", "--data.channels=1"]) == 0
    weights = load_weights("runs/p/backbone.safetensors")
    assert weights.info["timm"]["in_chans"] == 1
    assert len(weights.info["pixel_mean"]) == 1
    assert main([*FINETUNE_COMMAND, "f", "--weights", "runs/p/backbone.safetensors"]) == 0
    assert main([*FINETUNE_COMMAND, "scratch", "--data.channels=1"]) == 0
    assert main(["predict", "--config", "runs/f/predict.yaml", "--data.root", "shapes"]) == 0


def test_channels_other_than_those_of_the_weights_are_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PRETRAIN_COMMAND, "p"]) == 0
    command = [*FINETUNE_COMMAND, "f", "--weights", "runs/p/backbone.safetensors", "--data.channels=1"]
    assert main(command) == 1
    assert "patch size and channels as the weights" in capsys.readouterr().err


def test_a_pool_is_for_pretraining_only(
    work: Path, flat_folder: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    flat_folder(33, name="more")
    assert main([*PRETRAIN_COMMAND, "p", "--data.pool=[more]", "--data.budget.passes=1"]) == 0
    assert "3 images of more are left out: they are identical" in caplog.text
    checkpoint = torch.load("runs/p/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6  # of 8, over 15 images of shapes and 30 of more
    assert main([*FINETUNE_COMMAND, "f", "--data.pool=[more]"]) == 1
    assert "data.pool (more) have no labels" in capsys.readouterr().err
    assert not Path("runs/f").exists()


def test_the_progress_bar_can_be_switched_off(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PRETRAIN_COMMAND, "p", "--trainer.enable_progress_bar=false"]) == 0
    assert "images/s" not in capsys.readouterr().err


def test_a_resumed_pretraining_is_bit_for_bit_the_uninterrupted_one(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PRETRAIN_COMMAND, "whole"]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, Pretrain, 4, KeyboardInterrupt())
        assert main([*PRETRAIN_COMMAND, "parts"]) == 130
    said = capsys.readouterr().err
    assert "interrupted: runs/parts/checkpoints/last.ckpt is kept. To continue:" in said
    assert "\n  lit-splitmask pretrain --name parts --resume\n" in said
    parts, whole = work / "runs" / "parts", work / "runs" / "whole"
    assert not (parts / "backbone.safetensors").exists()
    with monkeypatch.context() as patch:
        patch.setattr(KMeans, "fit", lambda *_: pytest.fail("the codebook was fitted again"))
        assert main(["pretrain", "--name", "parts", "--resume"]) == 0
    ours, theirs = (load_weights(folder / "backbone.safetensors").state for folder in (parts, whole))
    assert same_tensors(ours, theirs)
    first, second = metrics(parts / "metrics-until-step-3.csv"), metrics(parts / "metrics.csv")
    losses = {row["step"]: row["train/loss"] for row in first + second if row["train/loss"]}
    expected = {row["step"]: row["train/loss"] for row in metrics(whole / "metrics.csv") if row["train/loss"]}
    assert losses == expected


def test_two_resumes_from_the_same_step_overwrite_no_metrics(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, Pretrain, 4, KeyboardInterrupt())
        assert main([*PRETRAIN_COMMAND, "p"]) == 130
        assert main(["pretrain", "--name", "p", "--resume"]) == 130
    before = (work / "runs" / "p" / "metrics-until-step-3.csv").read_text()
    assert main(["pretrain", "--name", "p", "--resume"]) == 0
    assert (work / "runs" / "p" / "metrics-until-step-3.csv").read_text() == before
    assert len(list((work / "runs" / "p").glob("metrics*.csv"))) == 3


def test_a_resumed_fine_tuning_is_bit_for_bit_the_uninterrupted_one(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(work / "finetune.yaml", FINETUNE, budget={"steps": 8}, num_epochs=4)
    assert main([*FINETUNE_COMMAND, "whole"]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, Classify, 7, KeyboardInterrupt())
        assert main([*FINETUNE_COMMAND, "parts"]) == 130
    checkpoint = torch.load("runs/parts/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6  # of the last whole epoch, whether or not that was the best one
    assert main(["finetune", "--name", "parts", "--resume"]) == 0
    ours, theirs = (load_weights(f"runs/{name}/classifier.safetensors") for name in ("parts", "whole"))
    assert same_tensors(ours.state, theirs.state)
    tests = [json.loads(Path(f"runs/{name}/test.json").read_text()) for name in ("parts", "whole")]
    assert tests[0]["scores"] == tests[1]["scores"]
    assert tests[0]["confusion"] == tests[1]["confusion"]


def test_a_run_longer_than_a_day_is_resumed(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, Pretrain, 4, KeyboardInterrupt())
        assert main([*PRETRAIN_COMMAND, "p", "--data.budget.steps", "6"]) == 130
    monkeypatch.setattr(EstimateTime, "_time_steps", lambda self, trainer, module: 1e6)
    assert main(["pretrain", "--name", "p", "--resume"]) == 0


def test_a_finished_run_can_be_made_longer(work: Path) -> None:
    assert main([*PRETRAIN_COMMAND, "p"]) == 0
    assert main(["pretrain", "--name", "p", "--resume", "--data.budget.steps", "9"]) == 0
    assert torch.load("runs/p/checkpoints/last.ckpt", weights_only=True)["global_step"] == 9


def test_a_loss_of_nan_ends_a_run_and_leaves_its_checkpoint_intact(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Pretrain.check_finite

    def check_finite(self: Pretrain, loss: torch.Tensor) -> None:
        original(self, loss * float("nan") if self.trainer.global_step == 4 else loss)

    monkeypatch.setattr(Pretrain, "check_finite", check_finite)
    assert main([*PRETRAIN_COMMAND, "p"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "optim.lr" in error
    assert "warmup" in error
    assert "its last checkpoint is intact" in error
    checkpoint = torch.load("runs/p/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())
    monkeypatch.undo()
    monkeypatch.chdir(work)
    assert main(["pretrain", "--name", "p", "--resume"]) == 0


def test_a_loss_of_nan_in_the_first_step_leaves_no_run_behind(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PRETRAIN_COMMAND, "p", "--model.optim.lr", "1e30"]) == 1
    error = capsys.readouterr().err
    assert "Lower the learning rate" in error
    assert "no checkpoint had been written" in error
    assert "then start again" in error
    assert not Path("runs/p").exists()


def test_fine_tuning_from_a_backbone_and_predicting(
    work: Path, pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(pretrained / "backbone.safetensors")
    assert main([*FINETUNE_COMMAND, "f", "--weights", weights]) == 0
    assert "lit-splitmask predict --config runs/f/predict.yaml" in capsys.readouterr().out
    report = json.loads(Path("runs/f/test.json").read_text())
    assert report["classes"] == ["disc", "square", "stripes"]
    assert "test/accuracy_top5" not in report["scores"]
    splits = load_index(next(Path("runs/data").glob("*/splits.npz"))).splits
    assert sum(map(sum, report["confusion"])) == len(splits["test"])
    correct = sum(row[i] for i, row in enumerate(report["confusion"]))
    assert report["scores"]["test/accuracy"] == pytest.approx(correct / len(splits["test"]))
    classifier = load_weights("runs/f/classifier.safetensors")
    assert classifier.info["class_names"] == report["classes"]
    assert len(classifier.info["pixel_mean"]) == len(classifier.info["pixel_std"]) == 3

    assert main(["predict", "--config", "runs/f/predict.yaml", "--data.root", "shapes"]) == 0
    rows = metrics(Path("runs/f/predictions.csv"))
    images = sorted(path.relative_to("shapes").as_posix() for path in Path("shapes").rglob("*.png"))
    assert [row["path"] for row in rows] == images
    for row in rows:
        assert sum(float(row[name]) for name in report["classes"]) == pytest.approx(1, abs=1e-4)
    tested = [row for row in rows if row["path"] in splits["test"]]
    named = [row["path"].split("/")[0] == row["predicted"] for row in tested]
    assert sum(named) / len(named) == pytest.approx(report["scores"]["test/accuracy"])


def test_the_command_after_a_pretraining_runs_whatever_the_shape_of_the_network(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["--model.backbone.embed_dim", "32", "--model.backbone.depth", "2", "--model.backbone.num_heads", "2"]
    short = ["--data.budget.steps", "2", "--data.batch_size", "4", "--data.num_workers", "0"]
    words = ["--model.objective.tokenizer.vocabulary", "8"]
    images = ["--data.root", "shapes", "--recipe", "splitmask_cpu", "--name", "p"]
    assert main(["pretrain", *images, *shape, *words, *short]) == 0
    said = capsys.readouterr().out
    (command,) = [line.split() for line in said.splitlines() if line.strip().startswith("lit-splitmask finetune")]
    assert command[-2:] == ["--recipe", "finetune_cpu"]
    assert main([*command[1:], "--name", "f", *short]) == 0
    assert config_of(load_weights("runs/f/classifier.safetensors")).depth == 2
    assert main([*command[1:], "--name", "g", *short, "--model.backbone.depth", "4"]) == 1  # a shape that is asked for
    assert "does not fit this backbone" in capsys.readouterr().err


def test_testing_a_classifier_again_gives_the_same_result(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FINETUNE_COMMAND, "f"]) == 0
    accuracy = json.loads(Path("runs/f/test.json").read_text())["scores"]["test/accuracy"]
    capsys.readouterr()
    assert main(["test", "--config", "runs/f/predict.yaml", "--data.root", "shapes"]) == 0
    said = capsys.readouterr().out
    lines = [line.split("│") for line in said.splitlines() if "│" in line]
    found = {cells[1].strip(): float(cells[2]) for cells in lines if len(cells) == 4 and cells[2].strip()}
    assert found["test/accuracy"] == pytest.approx(accuracy)
    assert main(["validate", "--config", "runs/f/predict.yaml", "--data.root", "shapes"]) == 0


def test_predicting_with_the_configuration_of_a_run_is_refused(pretrained: Path, capsys: Any) -> None:
    root = str(pretrained.parents[1] / "shapes")
    assert main(["predict", "--config", str(pretrained / "config.yaml"), "--data.root", root]) == 1
    assert str(pretrained / "predict.yaml") in capsys.readouterr().err


def test_images_without_labels_can_be_predicted(work: Path, flat_folder: Any) -> None:
    assert main([*FINETUNE_COMMAND, "f"]) == 0
    flat_folder(count=5)
    assert main(["predict", "--config", "runs/f/predict.yaml", "--data.root", "flat_shapes"]) == 0
    assert len(metrics(Path("runs/f/predictions.csv"))) == 5


def test_the_resolved_settings_repeat_a_run(work: Path) -> None:
    assert main([*PRETRAIN_COMMAND, "p", "--data.seed", "3", "--model.seed", "4"]) == 0
    settings = yaml.safe_load(Path("runs/p/config.yaml").read_text())
    assert (settings["data"]["init_args"]["seed"], settings["model"]["seed"]) == (3, 4)
    assert main(["pretrain", "--config", "runs/p/config.yaml", "--name", "again"]) == 0
    ours, theirs = (load_weights(f"runs/{name}/backbone.safetensors").state for name in ("again", "p"))
    assert same_tensors(ours, theirs)


def test_runs_without_a_name_are_numbered(work: Path) -> None:
    arguments = ["pretrain", "--recipe", "pretrain.yaml", "--data.root", "shapes", "--data.budget.steps", "1"]
    assert main(arguments) == main(arguments) == 0
    assert {folder.name for folder in Path("runs").iterdir()} == {"data", "pretrain-shapes", "pretrain-shapes-2"}


def test_resume_alone_finds_the_run_that_has_not_finished(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def begun(name: str, command: str, *, finished: bool = False) -> None:
        folder = Path("runs") / name
        folder.mkdir(parents=True)
        model = {"objective": {"class_path": "SplitMask"}} if command == "pretrain" else {}
        (folder / "config.yaml").write_text(yaml.safe_dump({"model": model, "runs_dir": "runs"}))
        if finished:
            (folder / "backbone.safetensors").touch()

    resume = Request.read("pretrain", ["--resume"])
    begun("done", "pretrain", finished=True)
    begun("other", "finetune")
    with pytest.raises(UserError, match="but none is unfinished"):
        with_run(resume)
    begun("half", "pretrain")
    assert with_run(resume).name == "half"
    assert "Resuming runs/half" in capsys.readouterr().out
    begun("half-2", "pretrain")
    with pytest.raises(UserError, match=r"but 2 can be resumed: half, half-2\. Give --name NAME"):
        with_run(resume)


def test_a_schedule_longer_than_a_day_is_not_started_without_a_budget(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load(Path("pretrain.yaml").read_text())
    del settings["data"]["init_args"]["budget"]
    Path("long.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(EstimateTime, "_time_steps", lambda *_: 100.0)
    monkeypatch.setattr(ahead, "about_how_many", lambda *_: None)  # as with shards, whose number is not known before
    arguments = ["pretrain", "--recipe", "long.yaml", "--data.root", "shapes", "--name", "long"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "lit-splitmask pretrain --recipe long.yaml --data.root shapes --name long --data.budget.images" in error
    for command in printed_commands(error):
        assert main([*command, "--print_config"]) == 0
    assert not Path("runs/long").exists()


FIT = """fit --model {module} --model.backbone.size tiny --model.backbone.embed_dim 32 --model.backbone.depth 2
--model.backbone.image_size 32 --model.backbone.patch_size 8 --data ImageFolder --data.image_size 32
--data.root shapes --data.batch_size 8 --data.num_workers 0 --data.budget.steps 2 --trainer.accelerator cpu
--trainer.precision 32-true --trainer.enable_progress_bar false"""


@pytest.mark.parametrize("module", ["Pretrain", "Classify"])
def test_lightning_trains_any_module(work: Path, module: str) -> None:
    assert main(FIT.format(module=module).split()) == 0
    checkpoint = next(Path("lightning_logs").rglob("*.ckpt"))
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 2


def test_ctrl_c_in_fit_names_the_checkpoint_and_the_command_that_goes_on(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*FIT.format(module="Classify").split(), "--data.num_epochs", "2"]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, Classify, 1, KeyboardInterrupt())
        assert main(command) == 130
    checkpoint = next(Path("lightning_logs").rglob("*.ckpt"))
    said = capsys.readouterr().err
    assert f"{checkpoint} is kept. To continue:" in said
    go_on = next(line for line in said.splitlines() if line.startswith("  lit-splitmask fit "))
    assert main(shlex.split(go_on)[1:]) == 0
    assert any(
        torch.load(path, weights_only=True)["global_step"] == 2 for path in Path("lightning_logs").rglob("*.ckpt")
    )
