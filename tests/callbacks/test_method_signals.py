"""A method may name the signals that choose its checkpoint: MoCo v3 does, since RankMe misleads there."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tiny_runs import BACKBONE, image_data, one_thread, tiny_trainer  # noqa: F401

from lit_splitmask.augment.multi_crop import MultiCrop
from lit_splitmask.callbacks import OverfitAwareCheckpoint
from lit_splitmask.callbacks.evaluation_plan import rule_for
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Pretrain
from lit_splitmask.objectives import MAE, MoCoV3
from lit_splitmask.selection.rule import Rule

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

SHAPE = ViTConfig(**{"image_size": 32, **BACKBONE})
SMALL_MOCOV3 = partial(MoCoV3, hidden_dim=16, output_dim=8)
ALL = ["held_out_loss", "rankme", "knn", "linear"]


def fit(root: Path, checkpoint: OverfitAwareCheckpoint, ckpt_path: Path | None = None) -> OverfitAwareCheckpoint:
    trainer = tiny_trainer(root.parent, callbacks=[checkpoint], enable_checkpointing=True)
    data = image_data(root, steps=2, num_epochs=2, augment=MultiCrop(num_local=0))
    trainer.fit(Pretrain(SMALL_MOCOV3, backbone=SHAPE), datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return checkpoint


def checkpoint(folder: Path, rule: Rule | None = None) -> OverfitAwareCheckpoint:
    return OverfitAwareCheckpoint(str(folder), most_cost=1e9, rule=rule)


def test_the_method_decides_then_the_default_then_what_is_measured() -> None:
    moco, mae = (Pretrain(method, backbone=SHAPE) for method in (SMALL_MOCOV3, MAE))
    assert rule_for(moco, ALL) == Rule(["linear", "knn"])
    assert rule_for(moco, ["rankme", "knn"]) == Rule(["knn"])
    assert rule_for(moco, ["rankme"]) == Rule(["rankme"])
    assert rule_for(mae, ALL) == rule_for(None, ALL) == Rule(["rankme", "linear", "held_out_loss"])
    assert rule_for(None, ["spread"]) == Rule(["spread"])


def test_with_labels_the_probe_chooses_also_after_a_resume(class_folder: MakeFolder, tmp_path: Path) -> None:
    root = class_folder(per_class=8)
    whole = fit(root, checkpoint(tmp_path / "c"))
    assert list(whole.rule.signals) == ["linear", "knn"]
    assert {"rankme", "linear", "knn"} <= whole.history[0].values.keys()
    resumed = fit(root, checkpoint(tmp_path / "c"), tmp_path / "c" / "last.ckpt")
    assert [reading.as_json() for reading in resumed.history] == [reading.as_json() for reading in whole.history]


def test_a_rule_that_is_given_stays(class_folder: MakeFolder, tmp_path: Path) -> None:
    given = fit(class_folder(per_class=8), checkpoint(tmp_path / "c", Rule(["rankme"])))
    assert given.rule == Rule(["rankme"])


def test_without_labels_the_last_checkpoint_is_kept(
    flat_folder: MakeFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = fit(flat_folder(20), checkpoint(tmp_path / "c"))
    assert "None of the signals that decide can be measured, so the last checkpoint is kept" in caplog.text
    assert kept.history[0].values.keys() >= {"rankme"}
    assert kept.best_step == 2
