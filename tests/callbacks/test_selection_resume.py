"""``OverfitAwareCheckpoint`` in runs that are interrupted, killed, resumed or started twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from scripted_runs import choosing, step_of, train
from tiny_runs import one_thread, same_tensors  # noqa: F401

from lit_splitmask.callbacks import ExportWeights, OverfitAwareCheckpoint
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.errors import UserError
from lit_splitmask.selection.rule import Rule

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


class PowerCut(Callback):
    """Ends a run before an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("power cut")


@pytest.mark.parametrize("epoch", [1, 2, 4, 5])
def test_an_interrupted_run_decides_as_an_uninterrupted_one(root: Path, tmp_path: Path, epoch: int) -> None:
    whole = OverfitAwareCheckpoint(str(tmp_path / "whole"), most_cost=1e9)
    train(root, whole)
    with pytest.raises(RuntimeError, match="power cut"):
        train(root, OverfitAwareCheckpoint(str(tmp_path / "parts"), most_cost=1e9), PowerCut(epoch))
    parts = OverfitAwareCheckpoint(str(tmp_path / "parts"), most_cost=1e9)
    train(root, parts, ckpt_path=str(tmp_path / "parts" / "last.ckpt"))
    stored = [json.loads((tmp_path / name / "selection.json").read_text()) for name in ("whole", "parts")]
    for one in stored:
        del one["seconds"], one["checkpoint"]
    assert stored[0] == stored[1]
    states = [torch.load(tmp_path / name / "best.ckpt", weights_only=True) for name in ("whole", "parts")]
    assert same_tensors(states[0]["state_dict"], states[1]["state_dict"])
    names = [{path.name for path in (tmp_path / name).glob("*.ckpt")} for name in ("whole", "parts")]
    assert names[0] == names[1]


def test_a_run_that_fails_reports_no_checkpoint(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(root, choosing(tmp_path / "c", 0.1, 0.2), PowerCut(epoch=2))
    assert "Keep step" not in capsys.readouterr().out
    assert not (tmp_path / "c" / "selection.png").exists()


def test_a_resumed_run_keeps_the_same_earlier_bests(root: Path, tmp_path: Path) -> None:
    values = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    with pytest.raises(RuntimeError, match="power cut"):
        train(root, choosing(tmp_path / "c", *values, keep=2), PowerCut(epoch=4))
    checkpoint = choosing(tmp_path / "c", *values[4:], keep=2)
    train(root, checkpoint, ckpt_path=str(tmp_path / "c" / "last.ckpt"))
    steps = {path.stem: step_of(path) for path in (tmp_path / "c").glob("*.ckpt")}
    assert steps == {"best": 6, "last": 6, "step-00000004": 4, "step-00000005": 5}


def test_a_resumed_run_exports_the_best_checkpoint_of_its_first_part(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(root, choosing(tmp_path / "c", 0.1, 0.5, 0.2), PowerCut(epoch=3))
    checkpoint = choosing(tmp_path / "c", *[0.2] * 3)
    export = ExportWeights(str(tmp_path / "w.safetensors"))
    train(root, export, checkpoint, ckpt_path=str(tmp_path / "c" / "last.ckpt"))
    assert checkpoint.best_model_path == str(tmp_path / "c" / "best.ckpt")
    assert load_weights(tmp_path / "w.safetensors").info["step"] == 2


def test_the_times_of_both_parts_of_a_resumed_run_are_added(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(root, choosing(tmp_path / "c", 0.1), PowerCut(epoch=1))
    stored = torch.load(tmp_path / "c" / "last.ckpt", weights_only=True)
    path, state = tmp_path / "c" / "last.ckpt", stored["callbacks"]
    (own,) = [name for name in state if name.startswith("OverfitAwareCheckpoint")]
    assert state[own]["seconds"] > 0 < state[own]["training_seconds"]
    state[own]["seconds"], state[own]["training_seconds"] = 1000.0, 2000.0
    torch.save(stored, path)
    checkpoint = choosing(tmp_path / "c", *[0.1] * 5)
    train(root, checkpoint, ckpt_path=str(path))
    assert 1000 < checkpoint.seconds < 2000 < checkpoint.training_seconds


def test_a_kill_between_best_and_last_changes_no_decision(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    saves: list[str] = []
    save = OverfitAwareCheckpoint._save

    def killed(self: Any, trainer: Any, name: str) -> None:
        saves.append(name)
        if saves.count("last") == 4:  # best.ckpt of this epoch is written, last.ckpt is not
            raise RuntimeError("killed")
        save(self, trainer, name)

    with monkeypatch.context() as patch:
        patch.setattr(OverfitAwareCheckpoint, "_save", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(root, choosing(tmp_path / "c", *values, keep=9))
    assert (step_of(tmp_path / "c" / "best.ckpt"), step_of(tmp_path / "c" / "last.ckpt")) == (4, 3)
    checkpoint = choosing(tmp_path / "c", *values[3:], keep=9)
    train(root, checkpoint, ckpt_path=str(tmp_path / "c" / "last.ckpt"))
    assert [reading.values["knn"] for reading in checkpoint.history] == list(values)
    steps = {path.stem: step_of(path) for path in (tmp_path / "c").glob("*.ckpt")}
    assert steps == {"best": 6, "last": 6, **{f"step-{step:08d}": step for step in range(1, 6)}}


def test_a_folder_of_another_run_is_refused_and_left_alone(root: Path, tmp_path: Path) -> None:
    train(root, choosing(tmp_path / "c", *[0.1] * 6))
    before = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    with pytest.raises(UserError, match="holds checkpoints of another run"):
        train(root, choosing(tmp_path / "c", *[0.1] * 6))
    assert {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()} == before


def test_a_resume_with_another_rule_is_refused(root: Path, tmp_path: Path) -> None:
    train(root, choosing(tmp_path / "c", *[0.1] * 6))
    other = choosing(tmp_path / "c", rule=Rule(("knn",), patience=0.5))
    with pytest.raises(UserError, match="chose its checkpoints with other settings: rule was"):
        train(root, other, ckpt_path=str(tmp_path / "c" / "last.ckpt"))
    seldom = choosing(tmp_path / "c", most_cost=0.5)
    with pytest.raises(UserError, match=r"with other settings: most_cost was 1000000000\.0 and is now 0\.5"):
        train(root, seldom, ckpt_path=str(tmp_path / "c" / "last.ckpt"))
