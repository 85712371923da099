"""Signals: what a class must declare, what they cost, and that measuring disturbs nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import image_data, one_thread, pretrain_module  # noqa: F401
from torch import nn

from lit_splitmask.selection.signals import KNN, HeldOutLoss, Linear, LossGap, RankMe, Sizes, forward_passes, measure
from lit_splitmask.selection.snapshot import ImageSubset, Snapshot, undisturbed

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


def test_modes_and_random_states_are_restored() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    module[0].eval()
    before = torch.random.get_rng_state()
    with undisturbed(module):
        assert not any(part.training for part in module.modules())
        assert not torch.is_grad_enabled()
        torch.rand(3)
    assert [part.training for part in module.modules()] == [True, False, True, True]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_signals_are_the_same_for_any_batch_size(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_data(root)
    data.prepare_data()
    data.setup("fit")
    module = pretrain_module()
    found = []
    for size in (2, 128):
        monkeypatch.setattr("lit_splitmask.selection.snapshot.BATCH_SIZE", size)
        train, held_out = (
            ImageSubset(data.eval_images(samples), 100) for samples in (data.train_samples, data.source.splits["val"])
        )
        with undisturbed(module):
            found.append(measure([RankMe(), KNN(), Linear()], Snapshot(module, train, held_out, 3, 0)).values)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_loss_gap_is_between_losses_with_the_same_masks(root: Path) -> None:
    data = image_data(root)
    data.prepare_data()
    data.setup("fit")
    module = pretrain_module()
    images = ImageSubset(data.eval_images(data.train_samples), 100)
    with undisturbed(module):
        found = measure([HeldOutLoss(), LossGap()], Snapshot(module, images, images, 3, 0))
    assert found.values["held_out_loss"] > 0
    assert found.values["loss_gap"] == 0  # the same images on both sides
    assert found.seconds.keys() == found.values.keys()


def test_the_cost_counts_the_images_that_are_used() -> None:
    sizes = Sizes(num_train=100, num_held_out=10, num_classes=2, width=8, macs=1000)
    assert forward_passes([RankMe()], sizes) == 10
    assert forward_passes([HeldOutLoss(), RankMe(), KNN()], sizes) == 110 + 4 * 10
    assert forward_passes([LossGap()], sizes) == 4 * 20
    assert forward_passes([KNN(), Linear()], replace(sizes, num_classes=0)) == 1
    assert forward_passes([Linear()], sizes) == 110 + 4200 * 100 * 8 * 2 / 1000
