"""``OverfitAwareCheckpoint`` and ``OverfitAwareEarlyStopping`` in real, tiny runs."""

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from scripted_runs import Scripted, choosing, step_of, train
from tiny_runs import image_data, one_thread, pretrain_module, same_tensors, tiny_trainer  # noqa: F401
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_splitmask.callbacks import (
    KNN,
    ExportWeights,
    HeldOutLoss,
    Linear,
    LossGap,
    OverfitAwareCheckpoint,
    OverfitAwareEarlyStopping,
    RankMe,
    ShortFinetune,
)
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.selection.rule import Rule

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

ALL = [HeldOutLoss, RankMe, KNN, Linear, LossGap, lambda: ShortFinetune(steps=2)]


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


def test_the_best_the_last_and_earlier_bests_stay_on_disk(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    checkpoint = choosing(folder, 0.1, 0.2, 0.3, 0.4, 0.35, 0.3, keep=2)
    trainer, _ = train(root, checkpoint)
    assert {path.name for path in folder.glob("*.ckpt")} == {
        "best.ckpt",
        "last.ckpt",
        "step-00000002.ckpt",
        "step-00000003.ckpt",
    }
    steps = {path.stem: step_of(path) for path in folder.glob("*.ckpt")}
    assert steps == {"best": 4, "last": 6, "step-00000002": 2, "step-00000003": 3}
    assert trainer.checkpoint_callback.best_model_path == str(folder / "best.ckpt")
    assert float(checkpoint.best_model_score) == pytest.approx(0.4)
    stored = json.loads((folder / "selection.json").read_text())
    assert (stored["best_step"], stored["overfits_from"], stored["signal"]) == (4, 5, "knn")
    assert [entry["values"]["knn"] for entry in stored["history"]] == [0.1, 0.2, 0.3, 0.4, 0.35, 0.3]
    assert (folder / "selection.png").stat().st_size > 1000


@pytest.mark.parametrize(("keep", "earlier"), [(0, []), (1, [3]), (9, [1, 2, 3])])
def test_only_the_latest_earlier_bests_stay_on_disk(root: Path, tmp_path: Path, keep: int, earlier: list[int]) -> None:
    train(root, choosing(tmp_path / "c", 0.1, 0.2, 0.3, 0.4, 0.1, keep=keep), epochs=5)
    steps = {path.stem: step_of(path) for path in (tmp_path / "c").glob("*.ckpt")}
    assert steps == {"best": 4, "last": 5, **{f"step-{step:08d}": step for step in earlier}}


class ScriptedLoss(Scripted):
    """A signal that only its class knows, of which less is better."""

    name, better = "scripted_loss", "min"


def test_the_direction_of_a_new_signal_is_that_of_its_class(root: Path, tmp_path: Path) -> None:
    signal, rule = ScriptedLoss(0.4, 0.2, 0.3, 0.5), Rule(("scripted_loss",), window=1)
    checkpoint = choosing(tmp_path / "c", signals=[signal], rule=rule)
    train(root, checkpoint, epochs=4)
    assert step_of(tmp_path / "c" / "best.ckpt") == checkpoint.best_step == 2
    stored = json.loads((tmp_path / "c" / "selection.json").read_text())
    assert (stored["signal"], stored["overfits_from"]) == ("scripted_loss", 3)
    assert stored["reason"].startswith("scripted_loss was lowest at step 2 (0.2)")
    highest = choosing(tmp_path / "d", 0.4, 0.2, 0.3, 0.5)  # the same values, of which more is better
    train(root, highest, epochs=4)
    assert highest.best_step == 4


def test_signals_and_their_times_are_logged(root: Path, tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path), name="", version="")
    train(root, choosing(tmp_path / "c", 0.25, math.nan, 0.75), epochs=3, logger=logger)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["signal_seconds/knn"]]
    assert [(row["step"], row["signal/knn"]) for row in rows] == [("1", "0.25"), ("2", ""), ("3", "0.75")]


def test_a_fast_development_run_writes_no_checkpoint(root: Path, tmp_path: Path) -> None:
    checkpoint = choosing(tmp_path / "c", 0.1)
    train(root, checkpoint, fast_dev_run=True)
    assert not checkpoint.history
    assert not (tmp_path / "c").exists()


def test_a_run_with_probes_ends_with_the_weights_of_one_without(root: Path, tmp_path: Path) -> None:
    checkpoint = OverfitAwareCheckpoint(str(tmp_path / "c"), signals=[make() for make in ALL], most_cost=1e9)
    _, probed = train(root, checkpoint)
    assert len(checkpoint.history) == 6
    assert checkpoint.history[0].values.keys() == {"held_out_loss", "loss_gap", "rankme", "knn", "linear", "finetune"}
    _, plain = train(root, ModelCheckpoint(str(tmp_path / "d")))
    assert same_tensors(probed.state_dict(), plain.state_dict())


def test_only_the_network_computes_in_the_trainers_precision(root: Path, tmp_path: Path) -> None:
    checkpoint = OverfitAwareCheckpoint(str(tmp_path / "c"), signals=[make() for make in ALL], most_cost=1e9)
    train(root, checkpoint, epochs=1, precision="bf16-mixed")
    assert all(math.isfinite(value) for value in checkpoint.history[0].values.values())


def test_training_stops_when_the_rule_says_so(root: Path, tmp_path: Path) -> None:
    values = (0.1, 0.5, *[0.4] * 18)
    stopped, _ = train(root, choosing(tmp_path / "a", *values), OverfitAwareEarlyStopping(), epochs=20)
    assert stopped.global_step == 9  # the warm-up takes four steps, the patience five of twenty
    assert step_of(tmp_path / "a" / "best.ckpt") == 2
    whole, _ = train(root, choosing(tmp_path / "b", *values), epochs=20)
    assert whole.global_step == 20


def test_stopping_needs_something_that_decides(root: Path) -> None:
    with pytest.raises(UserError, match="needs an OverfitAwareCheckpoint"):
        train(root, OverfitAwareEarlyStopping())


def test_signals_that_are_not_measured_cannot_decide(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"decides by nonsense, which is not measured\. Measured are held_out_loss, rankme"
    ):
        OverfitAwareCheckpoint(str(tmp_path), rule=Rule(("nonsense",)))
    with pytest.raises(UserError, match=r"Two signals have the same name, of knn, rankme, knn"):
        OverfitAwareCheckpoint(str(tmp_path), signals=[KNN(1), RankMe(), KNN(5)])
    with pytest.raises(UserError, match="evaluations=0"):
        OverfitAwareCheckpoint(str(tmp_path), evaluations=0)
    with pytest.raises(UserError, match="keep=-1"):
        OverfitAwareCheckpoint(str(tmp_path), keep=-1)


def test_without_held_out_images_the_last_checkpoint_is_kept(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = OverfitAwareCheckpoint(str(tmp_path / "c"))
    trainer = tiny_trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True)
    data = image_data(root, splits=SplitOptions(val_share=0.0))
    trainer.fit(pretrain_module(), datamodule=data)
    assert "no held-out images" in caplog.text
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["last.ckpt"]


def test_without_labels_only_signals_that_need_none_are_measured(flat_folder: MakeFolder, tmp_path: Path) -> None:
    checkpoint = OverfitAwareCheckpoint(str(tmp_path / "c"), most_cost=1e9)
    train(flat_folder(20), checkpoint, epochs=2)
    assert checkpoint.history[0].values.keys() == {"held_out_loss", "rankme"}
    assert json.loads((tmp_path / "c" / "selection.json").read_text())["signal"] == "rankme"


def test_with_some_images_unlabelled_the_signals_that_need_labels_are_left_out(
    root: Path, flat_folder: MakeFolder, tmp_path: Path
) -> None:
    checkpoint = OverfitAwareCheckpoint(str(tmp_path / "c"), most_cost=1e9)
    trainer = tiny_trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True)
    pool = [str(flat_folder(12, name="pool"))]
    trainer.fit(pretrain_module(), datamodule=image_data(root, steps=1, num_epochs=1, pool=pool))
    assert checkpoint.history[0].values.keys() == {"held_out_loss", "rankme"}


def test_missing_values_are_skipped_and_written_as_null(root: Path, tmp_path: Path) -> None:
    train(root, choosing(tmp_path / "c", 0.1, math.nan, 0.3, math.nan, 0.2, math.nan))
    stored = json.loads((tmp_path / "c" / "selection.json").read_text())
    assert stored["history"][1]["values"]["knn"] is None
    assert stored["best_step"] == 3


def test_a_full_disk_is_reported_and_the_earlier_checkpoints_stay(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step == 2:
                monkeypatch.setattr(os, "fsync", fail)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*previous one is intact: then resume"):
        train(root, choosing(tmp_path / "c", 0.1, 0.2, 0.3), Full())
    assert (step_of(tmp_path / "c" / "best.ckpt"), step_of(tmp_path / "c" / "last.ckpt")) == (2, 2)
    assert not list((tmp_path / "c").glob("*.tmp"))


def test_there_are_as_many_evaluations_as_their_cost_allows(root: Path, tmp_path: Path) -> None:
    cheap = choosing(tmp_path / "a", *[0.1] * 12, evaluations=4)
    train(root, cheap, epochs=12)
    assert [reading.step for reading in cheap.history] == [3, 6, 9, 12]
    uneven = choosing(tmp_path / "c", *[0.1] * 3, evaluations=3)
    train(root, uneven, epochs=7)
    assert [reading.step for reading in uneven.history] == [3, 6, 7]  # and always the last one
    dear = choosing(tmp_path / "b", *[0.1] * 12, most_cost=0.0)
    train(root, dear, epochs=12)
    assert not dear.history
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["last.ckpt"]


class Own(LightningModule):
    """A module with ``features`` and nothing else of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def features(self, images: Tensor) -> Tensor:
        return self.layer(images.float().mean(dim=(2, 3)) / 255)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.features(batch["image"]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_it_works_with_a_module_and_images_of_the_user(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = [
        {"image": torch.randint(256, (3, 8, 8), generator=generator, dtype=torch.uint8), "label": n % 2}
        for n in range(12)
    ]
    checkpoint = OverfitAwareCheckpoint(
        str(tmp_path / "c"),
        signals=[RankMe(), KNN(k=3), Linear()],
        rule=Rule(("linear",)),
        images=(images[:8], images[8:]),
        num_classes=2,
        most_cost=1e9,
    )
    trainer = tiny_trainer(tmp_path, max_epochs=3, callbacks=[checkpoint], enable_checkpointing=True)
    trainer.fit(Own(), DataLoader(images, batch_size=4))
    assert [reading.step for reading in checkpoint.history] == [3, 6, 9]
    assert checkpoint.history[0].values.keys() == {"rankme", "knn", "linear"}
    assert (tmp_path / "c" / "best.ckpt").exists()


def test_training_without_an_end_is_refused(tmp_path: Path) -> None:
    images = [{"image": torch.zeros(3, 8, 8, dtype=torch.uint8), "label": n % 2} for n in range(4)]
    checkpoint = OverfitAwareCheckpoint(str(tmp_path / "c"), signals=[RankMe()], images=(images, images))
    trainer = tiny_trainer(tmp_path, max_epochs=-1, callbacks=[checkpoint], enable_checkpointing=True)
    with pytest.raises(UserError, match="max_epochs or max_steps"):
        trainer.fit(Own(), DataLoader(images, batch_size=4))


PROCESSES = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
from tiny_runs import end_together, image_data, pretrain_module, tiny_trainer
from lit_splitmask.callbacks import OverfitAwareCheckpoint
from lit_splitmask.selection import snapshot

torch.set_num_threads(1)
snapshot.BATCH_SIZE = 2  # of nine images: the last batch is smaller, and the processes have different numbers of batches
root, devices = Path(sys.argv[1]), int(sys.argv[2])
checkpoint = OverfitAwareCheckpoint(str(root.parent / f"of{devices}"), most_cost=1e9)
strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
trainer = tiny_trainer(root.parent, callbacks=[checkpoint], enable_checkpointing=True, limit_val_batches=0, **strategy)
module = pretrain_module(drop_path=0.0)
trainer.fit(module, datamodule=image_data(root, steps=4, num_epochs=4))
stored = {"history": checkpoint.state_dict()["history"], "best": checkpoint.decision(trainer, module).best_step}
(root.parent / f"of{devices}-rank{trainer.global_rank}.json").write_text(json.dumps(stored))
end_together()
"""


def test_two_processes_and_one_choose_the_same_checkpoint(root: Path) -> None:
    script = root.parent / "script.py"
    script.write_text(PROCESSES)
    tests = str(Path(__file__).parents[1])
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), str(root), devices, tests],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, first, second = (
        json.loads((root.parent / f"{name}.json").read_text()) for name in ("of1-rank0", "of2-rank0", "of2-rank1")
    )
    assert first == second
    assert first["best"] == one["best"]
    for ours, theirs in zip(one["history"], first["history"], strict=True):
        assert ours["values"] == pytest.approx(theirs["values"], rel=1e-3)
    assert step_of(root.parent / "of2" / "best.ckpt") == step_of(root.parent / "of1" / "best.ckpt") == one["best"]


def test_the_weights_of_the_best_and_of_the_last_checkpoint_are_exported(root: Path, tmp_path: Path) -> None:
    checkpoint = choosing(tmp_path / "c", 0.1, 0.5, *[0.2] * 4)
    _, module = train(root, ExportWeights(str(tmp_path / "w.safetensors")), checkpoint)
    best, last = load_weights(tmp_path / "w.safetensors"), load_weights(tmp_path / "w_last.safetensors")
    assert (best.info["step"], last.info["step"]) == (2, 6)
    trained = torch.load(tmp_path / "c" / "best.ckpt", weights_only=True)["state_dict"]
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(best.state[name], trained[f"objective.backbone.{name}"])
    assert torch.equal(last.state[name], module.state_dict()[f"objective.backbone.{name}"])


def test_the_weights_are_exported_once_if_the_last_checkpoint_is_the_best(root: Path, tmp_path: Path) -> None:
    train(root, ExportWeights(str(tmp_path / "w.safetensors")), choosing(tmp_path / "c", 0.1, 0.5), epochs=2)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["w.safetensors"]
    assert load_weights(tmp_path / "w.safetensors").info["step"] == 2


def test_an_interrupted_training_reports_the_best_so_far(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupt(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 4:
                raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(root, choosing(tmp_path / "c", 0.1, 0.5, 0.2, 0.2), Interrupt())
    printed = capsys.readouterr().out
    assert "Keep step 2" in printed
    assert "Evaluations: 4" in printed
    assert (tmp_path / "c" / "selection.png").exists()
