"""``lit-splitmask compare`` end to end on a tiny folder."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer
from pages import printed_commands
from PIL import Image
from tiny_runs import FINETUNE, PRETRAIN

from lit_splitmask.checkpoints import load_weights, save_backbone
from lit_splitmask.cli import main
from lit_splitmask.commands.compare import experiment, step_times
from lit_splitmask.commands.compare.checks import window_notes
from lit_splitmask.commands.compare.experiment import Comparison
from lit_splitmask.commands.compare.jobs import Backbone, Finetuned
from lit_splitmask.datamodules import glance
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.modules import Classify, Pretrain

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

GRID = [
    {"model.optim.lr": 1e-3, "model.optim.layer_decay": 1.0},
    {"model.optim.lr": 3e-3, "model.optim.layer_decay": 0.5},
]

JOINT = {
    "model": {
        "auxiliary": {"class_path": "MAE", "init_args": {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}}
    },
    "data": {"init_args": {"unlabelled_share": 0.5}},
}
SELF_TRAINING = {**JOINT, "model": {"auxiliary": {"class_path": "SelfTraining"}}}


def with_passes(settings: dict[str, Any], passes: float) -> dict[str, Any]:
    data = {**settings["data"]["init_args"], "budget": {"passes": passes}, "num_epochs": 1}
    return {**settings, "data": {**settings["data"], "init_args": data}}


@pytest.fixture
def command(work: Path) -> list[str]:
    """A comparison of two seeds and two points of the grid, a pass each."""
    recipe = {"pretrain": with_passes(PRETRAIN, 1), "finetune": with_passes(FINETUNE, 1), "joint": JOINT}
    Path("tiny.yaml").write_text(yaml.safe_dump({**recipe, "self_training": SELF_TRAINING, "grid": GRID}))
    return ["compare", "--data.root", "shapes", "--recipe", "tiny.yaml", "--out", "c", "--seeds", "2"]


def count_training(patch: pytest.MonkeyPatch) -> list[str]:
    """Records the class of every module that is trained from now on."""
    trained: list[str] = []
    fit = Trainer.fit
    patch.setattr(Trainer, "fit", lambda self, m, *a, **k: (trained.append(type(m).__name__), fit(self, m, *a, **k))[1])
    return trained


def test_a_comparison_runs_once_and_reports(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = count_training(monkeypatch)
    command += ["--label_shares", "[0.5]"]
    assert main(command) == 0
    # one pre-training per seed, two points and two seeds per arm; three turns to time steps of four trainings
    assert trained.count("Pretrain") == 2 + 3
    assert trained.count("Classify") == 5 * 2 * 2 + 3 * 3
    report = json.loads(Path("c/comparison.json").read_text())
    (result,) = report["results"]
    arms = {arm["name"]: arm for arm in result["arms"]}
    assert list(arms) == ["scratch", "scratch_long", "pretrained", "joint", "self_training"]
    assert all(arm["accuracy"].keys() == arm["seconds"].keys() == {"0", "1"} for arm in arms.values())
    for seed in ("0", "1"):
        pretraining = json.loads(Path(f"c/pretrain-seed{seed}/result.json").read_text())["seconds"]
        assert pretraining > 0
        assert arms["pretrained"]["seconds"][seed] > pretraining
        for name in ("scratch_long", "joint", "self_training"):
            accuracy, correct = arms[name]["accuracy"][seed], arms[name]["correct"][seed]
            assert arms[name]["setting"].endswith("× the steps")
            assert correct.count("1") / len(correct) == pytest.approx(accuracy)
            found = [
                json.loads((run / "result.json").read_text())
                for run in Path("c/labels0.5").glob(f"{name}-*-seed{seed}")
            ]
            assert len(found) == len(GRID)  # tuned at this length
            assert any(run.get("correct") == correct for run in found)
            assert all(("auxiliary" in run["recipe"]["model"]) == (name != "scratch_long") for run in found)
    assert result["difference"]["num_images"] == len(correct)
    assert any("cannot be shown with 2 seeds and" in text for text in result["conclusions"])
    text = Path("c/comparison.md").read_text()
    assert result["verdict"] in text
    assert all(
        (run.parent / "metrics.csv").is_file() for run in Path("c").glob("*/*/result.json")
    )  # testing keeps them
    with Image.open("c/curves.png") as picture:
        assert picture.width > picture.height
    with Image.open("c/comparison.png") as picture:
        assert picture.width > 300
    out = capsys.readouterr().out
    assert result["verdict"].split(":")[0] in out
    assert main(printed_commands(out)[-1]) == 0
    assert Path("c/report.html").is_file()

    before = {name: Path("c", name).read_bytes() for name in ("comparison.json", "comparison.md")}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda *_, **__: pytest.fail("trained again"))
        patch.setattr(Trainer, "test", lambda *_, **__: pytest.fail("tested again"))
        assert main(command) == 0
    assert {name: Path("c", name).read_bytes() for name in before} == before

    capsys.readouterr()
    assert main([*command, '--set_finetune=["--data.batch_size=4"]']) == 1
    error = capsys.readouterr().err
    assert "other settings" in error
    assert "--out" in error
    recipe = yaml.safe_load(Path("tiny.yaml").read_text())
    recipe["finetune"]["model"]["optim"]["weight_decay"] = 0.3
    Path("tiny.yaml").write_text(yaml.safe_dump(recipe))
    assert main(command) == 1  # the same command, another recipe
    assert "other settings" in capsys.readouterr().err


def test_an_interrupted_comparison_continues(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*command[:-1], "1", "--equal_time", "false"]
    with monkeypatch.context() as patch:
        step = Classify.training_step

        def stop(self: Any, batch: Any, batch_idx: int) -> Any:
            if len(finished()) == 3 and self.trainer.global_step == 1:
                raise KeyboardInterrupt
            return step(self, batch, batch_idx)

        patch.setattr(Classify, "training_step", stop)
        assert main(command) == 130
    assert len(finished()) == 3
    trained = count_training(monkeypatch)
    assert main(command) == 0
    assert trained == ["Classify", "Classify"]
    report = json.loads(Path("c/comparison.json").read_text())
    assert [arm["name"] for arm in report["results"][0]["arms"]] == ["scratch", "pretrained"]
    assert report["results"][0]["verdict"].startswith("No verdict from one seed")


def finished() -> list[Path]:
    return list(Path("c").rglob("result.json"))


def test_the_number_of_steps_does_not_depend_on_the_share_of_labels(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[str, int] = {}
    end = Classify.on_train_end

    def on_train_end(self: Classify) -> None:
        end(self)
        steps[Path(self.trainer.default_root_dir).parent.name] = self.trainer.global_step

    monkeypatch.setattr(Classify, "on_train_end", on_train_end)
    arguments = [*command[:-1], "1", "--equal_time", "false", "--label_shares", "[1.0, 0.5]"]
    assert main(arguments) == 0
    assert steps.keys() == {"labels1", "labels0.5"}
    assert steps["labels0.5"] == steps["labels1"]
    groups = json.loads(Path("c/comparison.json").read_text())["results"]
    assert [group["label_share"] for group in groups] == [1.0, 0.5]


def test_given_weights_are_two_more_arms_as_they_are_and_after_own_pre_training(command: list[str]) -> None:
    arguments = [*command[:-1], "1", "--equal_time", "false"]
    assert main(arguments) == 0
    assert main([*arguments, "--weights", "c/pretrain-seed0/backbone.safetensors"]) == 0
    (result,) = json.loads(Path("c/comparison.json").read_text())["results"]
    arms = {arm["name"]: arm["accuracy"] for arm in result["arms"]}
    assert arms.keys() == {"scratch", "pretrained", "given", "given_own"}
    assert arms["given"] == arms["pretrained"]  # they are the same weights
    own, both = (load_weights(f"c/{name}-seed0/backbone.safetensors").state for name in ("pretrain", "given"))
    assert not torch.equal(own["blocks.0.attn.qkv.weight"], both["blocks.0.attn.qkv.weight"])
    first = json.loads(Path("c/given-seed0/result.json").read_text())
    assert "--model.weights=c/pretrain-seed0/backbone.safetensors" in first["arguments"]
    assert first["seconds"] > 0


@pytest.mark.parametrize(
    "folder",
    [
        "flat",
        "one class",
        "no such weights",
        "other weights",
        "other backbone",
        "devices",
        "no share",
        "share",
        "empty",
        "steps",
    ],
)
def test_what_cannot_be_compared_is_refused_before_pretraining(
    folder: str, command: list[str], flat_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Pretrain, "training_step", lambda *_: pytest.fail("it was pre-trained"))
    flat_folder()
    root, options = "shapes", []
    if folder == "flat":
        root = "flat_shapes"
    elif folder == "one class":
        Path("one").mkdir()
        Path("shapes/disc").rename("one/disc")
        root = "one"
    elif folder == "no such weights":
        options = ["--weights", "none.safetensors"]
    elif folder == "other weights":
        save_backbone(Path("wide.safetensors"), ViT(ViTConfig(size="tiny", depth=1, image_size=16, patch_size=4)))
        options = ["--weights", "wide.safetensors"]
    elif folder == "other backbone":
        options = ['--set_pretrain=["--model.backbone.embed_dim=24"]']
    elif folder == "no share":
        options = ["--label_shares=[1.0, 0]"]
    elif folder == "share":
        options = ["--label_shares=[1.5]"]
    elif folder == "empty":
        options = ["--label_shares=[]"]
    elif folder == "steps":
        options = ['--set_finetune=["--data.budget.steps=5"]']
    else:
        options = ['--set_finetune=["--trainer.devices=2", "--trainer.accelerator=cpu"]']
    assert main(["compare", "--data.root", root, *command[3:], *options]) == 1
    error = capsys.readouterr().err
    expected = {
        "flat": "classes",
        "one class": "classes",
        "no such weights": "none.safetensors",
        "devices": "one device",
        "no share": "--label_shares holds 0",
        "share": "--label_shares holds 1.5",
        "empty": "--label_shares is empty",
        "steps": "must be given as passes",
    }
    assert expected.get(folder, "width") in error


def test_a_comparison_needs_at_least_one_seed(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command[:-1], "0"]) == 1
    assert "at least 1" in capsys.readouterr().err


def test_each_other_method_is_one_more_arm(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load(Path("tiny.yaml").read_text())
    Path("tiny.yaml").write_text(yaml.safe_dump({**recipe, "methods": "cpu", "grid": GRID[:1]}))
    more = ["--equal_time", "false", "--seeds", "1", "--methods", "mae@2,dino,dino"]
    assert main([*command, *more]) == 0
    (result,) = json.loads(Path("c/comparison.json").read_text())["results"]
    assert [arm["name"] for arm in result["arms"]] == ["scratch", "pretrained", "mae@2", "dino"]
    steps = {
        name: load_weights(f"c/{name}-seed0/backbone.safetensors").info["step"]
        for name in ("pretrain", "mae@2", "dino")
    }
    assert steps == {"pretrain": 2, "mae@2": 4, "dino": 2}
    assert "own pre-training, mae@2" in capsys.readouterr().out
    capsys.readouterr()
    assert main([*command, "--methods", "[simclr]", "--out", "d"]) == 1
    assert (
        "There is no method 'simclr' to compare with: choose one of beit, dino, instance, mae"
        in capsys.readouterr().err
    )
    assert main([*command, "--methods=supervised", "--label_shares=1,0.5", "--out", "d"]) == 1
    assert "supervised pre-trains on all labels" in capsys.readouterr().err


def test_a_recipe_chosen_for_the_images_has_no_image_twice_in_a_batch(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = []

    def look(self: Comparison) -> None:
        batches.extend(part["data"]["init_args"]["batch_size"] for part in (self.pretrain_recipe, self.finetune_recipe))
        raise UserError("stopped by the test")

    monkeypatch.setattr(Comparison, "check", look)
    assert main(["compare", "--data.root", "shapes"]) == 1
    assert max(batches) <= 0.8 * glance("shapes").num_images
    assert "exceed the number of training images" in capsys.readouterr().out


def test_the_recommended_command_runs_as_it_is_printed(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It trains as many steps as the arm did, with its settings."""
    assert main([*command, "--label_shares", "0.5"]) == 0
    out = capsys.readouterr().out
    (result,) = json.loads(Path("c/comparison.json").read_text())["results"]
    printed = result["command"]
    assert f"  {printed}\n" in out
    assert printed in Path("c/comparison.md").read_text()
    assert main([*shlex.split(printed)[1:], "--name", "recommended"]) == 0
    settings = yaml.safe_load(Path("runs/recommended/config.yaml").read_text())
    recommended = next(text for text in result["conclusions"] if text.startswith("Recommended"))
    name = "scratch_long" if "training from scratch, the simplest" in recommended else None
    assert name == "scratch_long"  # nothing is shown from two seeds of one pass
    (arm,) = [one for one in result["arms"] if one["name"] == name]
    assert f"lr {settings['model']['optim']['lr']:g}" in arm["setting"]
    theirs = next(Path("c/labels0.5").glob("scratch_long-*-seed0"))
    steps = [load_checkpoint(run)["global_step"] for run in (theirs, Path("runs/recommended"))]
    assert steps[0] == steps[1] > 2


def load_checkpoint(run: Path) -> dict[str, Any]:
    return dict(torch.load(run / "checkpoints/best.ckpt", weights_only=True))


def test_seeds_are_added_until_a_recommendation_is_settled(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracies are made up: own pre-training is better, which three seeds do not show and five do."""
    trained = set()

    def better(job: Any, **settings: Any) -> Any:
        seed = int(job.folder.path.name.rpartition("seed")[2])
        trained.add(seed)
        gain = [0.1, 0.3, 0.2, 0.2, 0.2][seed] if job.folder.path.name.startswith("pretrained") else 0.0
        return Finetuned(0.5, 60.0, {"test/accuracy": 0.5 + gain})

    monkeypatch.setattr(experiment, "run_finetuning", better)
    monkeypatch.setattr(experiment, "run_pretraining", lambda job: Backbone("w.safetensors", 1.0))
    monkeypatch.setattr(step_times, "step_times", lambda trainings: dict.fromkeys(trainings, 0.01))
    assert main([*command[:-1], "auto", "--max_seeds", "7"]) == 0
    assert trained == {0, 1, 2, 3, 4}
    out = capsys.readouterr().out
    assert "With 3 seeds" in out
    assert "With 5 seeds" not in out
    (result,) = json.loads(Path("c/comparison.json").read_text())["results"]
    assert result["confidence"] == pytest.approx(1 - 0.05 / 3)  # looks at 3, 5 and 7
    assert result["command"].endswith("--data.budget.passes=1")
    assert "--model.weights=w.safetensors" in result["command"]
    assert "98.33 %" in Path("c/comparison.md").read_text()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--max_seeds", "2"], "--max_seeds is 2"),
        (["--seeds", "auto", "--equal_time", "false"], "--equal_time false"),
    ],
)
def test_seeds_that_cannot_be_added_are_refused(
    options: list[str], error: str, command: list[str], capsys: Any
) -> None:
    assert main([*command[:-2], *options]) == 1
    assert error in capsys.readouterr().err


def test_lists_are_refused_before_any_work(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--data", "Manifest", "--data.manifest", "list.csv"]) == 1
    assert "compare reads a folder in which each class is a folder, not a list" in capsys.readouterr().err


def test_several_labels_an_image_are_refused_before_any_work(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    several = ["--data=Manifest", "--data.manifest=list.csv", "--data.splits.labels=several"]
    assert main([*command, f"--set_finetune={json.dumps(several)}"]) == 1
    assert "compare needs one label per image" in capsys.readouterr().err
    assert not Path("c/data").exists()


@pytest.mark.parametrize(
    ("theirs", "measured", "given", "says"),
    [
        ([0, 9000], (363.0, 3084.0), None, "0,9000, the others with that of the images, 363,3084"),
        ([363, 3084], (363.0, 3084.0), None, None),
        ([0, 9000], (0.0, 100.0), (0.0, 100.0), None),  # the option is for all arms
        ([0, 9000], None, None, None),  # images of 8 bits
        (None, (363.0, 3084.0), None, None),
    ],
)
def test_arms_that_read_16_bit_images_differently_are_named(
    theirs: list[float] | None, measured: Any, given: Any, says: str | None, tmp_path: Path
) -> None:
    vit = ViT(ViTConfig(embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=16))
    save_backbone(tmp_path / "w.safetensors", vit, **({} if theirs is None else {"pixel_window": theirs}))
    notes = window_notes(str(tmp_path / "w.safetensors"), SimpleNamespace(pixel_window=measured, window=given))
    assert len(notes) == (says is not None)
    assert says is None or (says in notes[0] and '["--data.window=363,3084"]' in notes[0])
