"""``OverfitAwareCheckpoint`` and ``OverfitAwareEarlyStopping`` in real, tiny runs."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
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
from lit_splitmask.selection.material import Images, Material, undisturbed
from lit_splitmask.selection.rule import Rule
from lit_splitmask.selection.signals import Signal, Sizes, forward_passes, measure

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

ALL = [HeldOutLoss, RankMe, KNN, Linear, LossGap, lambda: ShortFinetune(steps=2)]


class Scripted(Signal):
    """Says what it is told to, one value a time."""

    name, better = "knn", "max"

    def __init__(self, *values: float, error: float = 0.0) -> None:
        self.values, self.error, self.asked = list(values), error, 0

    def measure(self, material: Material) -> tuple[float, float]:
        self.asked += 1
        return self.values[self.asked - 1], self.error


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


def choosing(folder: Path, *values: float, **settings: Any) -> OverfitAwareCheckpoint:
    """Decides by scripted values, at every epoch."""
    given: dict[str, Any] = {"signals": [Scripted(*values)], "rule": Rule(("knn",), window=1), "most_cost": 1e9}
    return OverfitAwareCheckpoint(str(folder), **(given | settings))


def train(root: Path, *callbacks: Any, epochs: int = 6, ckpt_path: Any = None, **trainer: Any) -> Any:
    """Epochs of one step each."""
    module = pretrain_module()
    used = tiny_trainer(root.parent, callbacks=list(callbacks), enable_checkpointing=True, **trainer)
    used.fit(
        module, datamodule=image_data(root, steps=epochs, num_epochs=epochs), ckpt_path=ckpt_path, weights_only=True
    )
    return used, module


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def test_best_last_and_earlier_bests_are_kept(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    keeper = choosing(folder, 0.1, 0.2, 0.3, 0.4, 0.35, 0.3, keep=2)
    trainer, _ = train(root, keeper)
    assert {path.name for path in folder.glob("*.ckpt")} == {
        "best.ckpt",
        "last.ckpt",
        "step-00000002.ckpt",
        "step-00000003.ckpt",
    }
    steps = {path.stem: step_of(path) for path in folder.glob("*.ckpt")}
    assert steps == {"best": 4, "last": 6, "step-00000002": 2, "step-00000003": 3}
    assert trainer.checkpoint_callback.best_model_path == str(folder / "best.ckpt")
    assert float(keeper.best_model_score) == pytest.approx(0.4)
    said = json.loads((folder / "selection.json").read_text())
    assert (said["best_step"], said["overfits_from"], said["signal"]) == (4, 5, "knn")
    assert [entry["values"]["knn"] for entry in said["history"]] == [0.1, 0.2, 0.3, 0.4, 0.35, 0.3]
    assert (folder / "selection.png").stat().st_size > 1000


def test_a_run_with_probes_ends_with_the_weights_of_one_without(root: Path, tmp_path: Path) -> None:
    keeper = OverfitAwareCheckpoint(str(tmp_path / "c"), signals=[make() for make in ALL], most_cost=1e9)
    _, probed = train(root, keeper)
    assert len(keeper.history) == 6
    assert keeper.history[0].values.keys() == {"held_out_loss", "loss_gap", "rankme", "knn", "linear", "finetune"}
    _, plain = train(root, ModelCheckpoint(str(tmp_path / "d")))
    assert same_tensors(probed.state_dict(), plain.state_dict())


def test_only_the_network_computes_in_the_trainers_precision(root: Path, tmp_path: Path) -> None:
    keeper = OverfitAwareCheckpoint(str(tmp_path / "c"), signals=[make() for make in ALL], most_cost=1e9)
    train(root, keeper, epochs=1, precision="bf16-mixed")
    assert all(math.isfinite(value) for value in keeper.history[0].values.values())


@pytest.mark.parametrize("epoch", [1, 2, 4, 5])
def test_an_interrupted_run_decides_as_a_whole_one(root: Path, tmp_path: Path, epoch: int) -> None:
    class Interrupt(ModelCheckpoint):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == epoch:
                raise RuntimeError("power cut")

    whole = OverfitAwareCheckpoint(str(tmp_path / "whole"), most_cost=1e9)
    train(root, whole)
    with pytest.raises(RuntimeError, match="power cut"):
        train(root, OverfitAwareCheckpoint(str(tmp_path / "parts"), most_cost=1e9), Interrupt(str(tmp_path / "x")))
    parts = OverfitAwareCheckpoint(str(tmp_path / "parts"), most_cost=1e9)
    train(root, parts, ckpt_path=str(tmp_path / "parts" / "last.ckpt"))
    said = [json.loads((tmp_path / name / "selection.json").read_text()) for name in ("whole", "parts")]
    for one in said:
        del one["seconds"], one["checkpoint"]
    assert said[0] == said[1]
    states = [torch.load(tmp_path / name / "best.ckpt", weights_only=True) for name in ("whole", "parts")]
    assert same_tensors(states[0]["state_dict"], states[1]["state_dict"])
    names = [{path.name for path in (tmp_path / name).glob("*.ckpt")} for name in ("whole", "parts")]
    assert names[0] == names[1]


def test_a_kill_between_best_and_last_changes_no_decision(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    saves: list[str] = []
    save = OverfitAwareCheckpoint._save

    def killed(self: Any, trainer: Any, name: str) -> None:
        saves.append(name)
        if saves.count("last") == 4:  # the best of this epoch is written, the last is not
            raise RuntimeError("killed")
        save(self, trainer, name)

    with monkeypatch.context() as patch:
        patch.setattr(OverfitAwareCheckpoint, "_save", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(root, choosing(tmp_path / "c", *values))
    assert (step_of(tmp_path / "c" / "best.ckpt"), step_of(tmp_path / "c" / "last.ckpt")) == (4, 3)
    keeper = choosing(tmp_path / "c", *values[3:])
    train(root, keeper, ckpt_path=str(tmp_path / "c" / "last.ckpt"))
    assert [reading.values["knn"] for reading in keeper.history] == list(values)
    assert step_of(tmp_path / "c" / "best.ckpt") == 6


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
        UserError, match="decides by nonsense, which is not measured: measured are held_out_loss, rankme"
    ):
        OverfitAwareCheckpoint(str(tmp_path), rule=Rule(("nonsense",)))
    with pytest.raises(UserError, match="evaluations=0"):
        OverfitAwareCheckpoint(str(tmp_path), evaluations=0)


def test_a_folder_of_another_run_is_refused_and_left_alone(root: Path, tmp_path: Path) -> None:
    train(root, choosing(tmp_path / "c", *[0.1] * 6))
    before = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    with pytest.raises(UserError, match="holds checkpoints of another run"):
        train(root, choosing(tmp_path / "c", *[0.1] * 6))
    assert {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()} == before


def test_a_resume_with_another_rule_is_refused(root: Path, tmp_path: Path) -> None:
    train(root, choosing(tmp_path / "c", *[0.1] * 6))
    other = choosing(tmp_path / "c", rule=Rule(("knn",), patience=0.5))
    with pytest.raises(UserError, match="chose its checkpoints by other settings: rule was"):
        train(root, other, ckpt_path=str(tmp_path / "c" / "last.ckpt"))
    seldom = choosing(tmp_path / "c", most_cost=0.5)
    with pytest.raises(UserError, match=r"by other settings: most_cost was 1000000000\.0, and is 0\.5"):
        train(root, seldom, ckpt_path=str(tmp_path / "c" / "last.ckpt"))


def test_without_held_out_images_the_last_is_kept(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeper = OverfitAwareCheckpoint(str(tmp_path / "c"))
    trainer = tiny_trainer(tmp_path, callbacks=[keeper], enable_checkpointing=True)
    data = image_data(root, splits=SplitOptions(val_share=0.0))
    trainer.fit(pretrain_module(), datamodule=data)
    assert "no held-out images" in caplog.text
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["last.ckpt"]


def test_without_labels_the_signals_that_need_none_serve(flat_folder: MakeFolder, tmp_path: Path) -> None:
    keeper = OverfitAwareCheckpoint(str(tmp_path / "c"), most_cost=1e9)
    train(flat_folder(20), keeper, epochs=2)
    assert keeper.history[0].values.keys() == {"held_out_loss", "rankme"}
    assert json.loads((tmp_path / "c" / "selection.json").read_text())["signal"] == "rankme"


def test_missing_values_are_passed_over_and_written_as_null(root: Path, tmp_path: Path) -> None:
    train(root, choosing(tmp_path / "c", 0.1, math.nan, 0.3, math.nan, 0.2, math.nan))
    said = json.loads((tmp_path / "c" / "selection.json").read_text())
    assert said["history"][1]["values"]["knn"] is None
    assert said["best_step"] == 3


def test_a_full_disk_is_told_and_the_earlier_checkpoints_stay(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning import Trainer

    save = Trainer.save_checkpoint

    def full(self: Any, path: Any, *args: Any, **settings: Any) -> None:
        if self.global_step == 3:
            raise OSError(28, "No space left on device")
        save(self, path, *args, **settings)

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    with pytest.raises(UserError, match=r"No space left on device.*those before are kept"):
        train(root, choosing(tmp_path / "c", 0.1, 0.2, 0.3))
    assert (step_of(tmp_path / "c" / "best.ckpt"), step_of(tmp_path / "c" / "last.ckpt")) == (2, 2)


def test_evaluations_are_as_many_as_their_cost_allows(root: Path, tmp_path: Path) -> None:
    cheap = choosing(tmp_path / "a", *[0.1] * 12, evaluations=4)
    train(root, cheap, epochs=12)
    assert [reading.step for reading in cheap.history] == [3, 6, 9, 12]
    dear = choosing(tmp_path / "b", *[0.1] * 12, most_cost=0.0)
    train(root, dear, epochs=12)
    assert not dear.history
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["last.ckpt"]


class Own(LightningModule):
    """A module that knows nothing of this project but ``features``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def features(self, images: Tensor) -> Tensor:
        return self.layer(images.float().mean(dim=(2, 3)) / 255)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.features(batch["image"]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_it_serves_a_module_and_images_of_the_users_own(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = [
        {"image": torch.randint(256, (3, 8, 8), generator=generator, dtype=torch.uint8), "label": n % 2}
        for n in range(12)
    ]
    keeper = OverfitAwareCheckpoint(
        str(tmp_path / "c"),
        signals=[RankMe(), KNN(k=3), Linear()],
        rule=Rule(("linear",)),
        images=(images[:8], images[8:]),
        num_classes=2,
        most_cost=1e9,
    )
    trainer = tiny_trainer(tmp_path, max_epochs=3, callbacks=[keeper], enable_checkpointing=True)
    trainer.fit(Own(), DataLoader(images, batch_size=4))
    assert [reading.step for reading in keeper.history] == [3, 6, 9]
    assert keeper.history[0].values.keys() == {"rankme", "knn", "linear"}
    assert (tmp_path / "c" / "best.ckpt").exists()


def test_training_without_an_end_is_refused(tmp_path: Path) -> None:
    images = [{"image": torch.zeros(3, 8, 8, dtype=torch.uint8), "label": n % 2} for n in range(4)]
    keeper = OverfitAwareCheckpoint(str(tmp_path / "c"), signals=[RankMe()], images=(images, images))
    trainer = tiny_trainer(tmp_path, max_epochs=-1, callbacks=[keeper], enable_checkpointing=True)
    with pytest.raises(UserError, match="max_epochs or max_steps"):
        trainer.fit(Own(), DataLoader(images, batch_size=4))


def test_modes_and_random_states_are_put_back() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    module[0].eval()
    before = torch.random.get_rng_state()
    with undisturbed(module):
        assert not any(part.training for part in module.modules())
        assert not torch.is_grad_enabled()
        torch.rand(3)
    assert [part.training for part in module.modules()] == [True, False, True, True]
    assert torch.equal(torch.random.get_rng_state(), before)


PROCESSES = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
from tiny_runs import end_together, image_data, pretrain_module, tiny_trainer
from lit_splitmask.callbacks import OverfitAwareCheckpoint
from lit_splitmask.selection import material

torch.set_num_threads(1)
material.BATCH_SIZE = 2  # two images, of nine: the last batch is smaller, and unequally many fall to the processes
root, devices = Path(sys.argv[1]), int(sys.argv[2])
keeper = OverfitAwareCheckpoint(str(root.parent / f"of{devices}"), most_cost=1e9)
strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
trainer = tiny_trainer(root.parent, callbacks=[keeper], enable_checkpointing=True, limit_val_batches=0, **strategy)
module = pretrain_module(drop_path=0.0)
trainer.fit(module, datamodule=image_data(root, steps=4, num_epochs=4))
said = {"history": keeper.state_dict()["history"], "best": keeper.decision(trainer, module).best_step}
(root.parent / f"of{devices}-rank{trainer.global_rank}.json").write_text(json.dumps(said))
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


def test_signals_are_the_same_however_many_images_a_batch_holds(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_data(root)
    data.prepare_data()
    data.setup("fit")
    module = pretrain_module()
    found = []
    for size in (2, 128):
        monkeypatch.setattr("lit_splitmask.selection.material.BATCH_SIZE", size)
        train, held_out = (
            Images(data.eval_images(samples), 100) for samples in (data.train_samples, data.source.splits["val"])
        )
        with undisturbed(module):
            found.append(measure([RankMe(), KNN(), Linear()], Material(module, train, held_out, 3, 0)).values)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_weights_of_the_kept_checkpoint_are_exported_and_those_of_the_last(root: Path, tmp_path: Path) -> None:
    keeper = choosing(tmp_path / "c", 0.1, 0.5, *[0.2] * 4)
    _, module = train(root, ExportWeights(str(tmp_path / "w.safetensors")), keeper)
    kept, last = load_weights(tmp_path / "w.safetensors"), load_weights(tmp_path / "w_last.safetensors")
    assert (kept.info["step"], last.info["step"]) == (2, 6)
    trained = torch.load(tmp_path / "c" / "best.ckpt", weights_only=True)["state_dict"]
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(kept.state[name], trained[f"objective.backbone.{name}"])
    assert torch.equal(last.state[name], module.state_dict()[f"objective.backbone.{name}"])


def test_an_interrupted_training_tells_what_it_knows(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupt(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 4:
                raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(root, choosing(tmp_path / "c", 0.1, 0.5, 0.2, 0.2), Interrupt())
    told = capsys.readouterr().out
    assert "Keep step 2" in told
    assert "4 evaluations" in told
    assert (tmp_path / "c" / "selection.png").exists()


def test_the_gap_is_between_losses_with_the_same_masks(root: Path) -> None:
    data = image_data(root)
    data.prepare_data()
    data.setup("fit")
    module = pretrain_module()
    images = Images(data.eval_images(data.train_samples), 100)
    with undisturbed(module):
        found = measure([HeldOutLoss(), LossGap()], Material(module, images, images, 3, 0))
    assert found.values["held_out_loss"] > 0
    assert found.values["loss_gap"] == 0  # the same images on both sides
    assert found.seconds.keys() == found.values.keys()


def test_costs_count_what_is_looked_at() -> None:
    sizes = Sizes(num_train=100, num_held_out=10, num_classes=2, width=8, macs=1000)
    assert forward_passes([RankMe()], sizes) == 10
    assert forward_passes([HeldOutLoss(), RankMe(), KNN()], sizes) == 110 + 4 * 10
    assert forward_passes([LossGap()], sizes) == 4 * 20
    assert forward_passes([KNN(), Linear()], replace(sizes, num_classes=0)) == 1
    assert forward_passes([Linear()], sizes) == 110 + 4200 * 100 * 8 * 2 / 1000
