"""Signals: what a class must declare, what they cost, and that measuring disturbs nothing."""

import ast
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import image_data, one_thread, pretrain_module  # noqa: F401
from torch import Tensor, nn

from lit_splitmask.seeding import generator_for
from lit_splitmask.selection.measuring import affordable_evaluations, forward_passes, measure
from lit_splitmask.selection.signals import KNN, HeldOutLoss, Linear, LossGap, RankMe, Signal, Sizes
from lit_splitmask.selection.snapshot import ImageSubset, Snapshot, undisturbed

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


DECLARED = {
    "name": "new",
    "better": "max",
    "needs_features": ("held_out",),
    "measure": lambda self, snapshot: (0.0, 0.0),
}


def test_a_complete_declaration_defines_a_signal() -> None:
    signal = type("New", (Signal,), DECLARED)()
    assert (signal.name, signal.better, signal.needs_labels) == ("new", "max", False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": None}, "must set the class attribute name"),
        ({"name": ""}, "must set the class attribute name"),
        ({"better": None}, "must set better to 'max' or 'min', not to None: .* the worst checkpoint is kept"),
        ({"better": "highest"}, "must set better to 'max' or 'min', not to 'highest'"),
        ({"needs_labels": "no"}, "must set needs_labels to True or False, not to 'no'"),
        ({"needs_features": ("val",)}, r"must set needs_features to a tuple .*, not to \('val',\)"),
        ({"needs_features": ("train", "test")}, "must set needs_features to a tuple of 'train' and 'held_out'"),
        ({"needs_features": "train"}, "must set needs_features to a tuple of 'train' and 'held_out', not to 'train'"),
        ({"needs_features": ()}, "must set needs_features or define forward_passes: its cost decides"),
    ],
)
def test_a_wrong_declaration_is_an_error_when_the_class_is_defined(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"The signal New {message}"):
        type("New", (Signal,), DECLARED | wrong)


@pytest.mark.parametrize("missing", ["name", "better", "needs_features"])
def test_a_missing_declaration_is_an_error_when_the_class_is_defined(missing: str) -> None:
    with pytest.raises(TypeError, match=f"The signal New must set .*{missing}"):
        type("New", (Signal,), {name: value for name, value in DECLARED.items() if name != missing})


def test_a_signal_inherits_what_its_base_declares() -> None:
    class Knn5(KNN):
        name = "knn5"

    assert (Knn5.better, Knn5.needs_labels, Knn5.needs_features) == ("max", True, ("train", "held_out"))


def test_only_the_classes_of_signals_hold_directions() -> None:
    import lit_splitmask

    for path in Path(lit_splitmask.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                values = {value.value for value in node.values if isinstance(value, ast.Constant)}
                assert not values & {"max", "min"}, f"{path.name}:{node.lineno} holds a table of directions"


def test_modes_and_random_states_are_restored() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    module[0].eval()
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    with undisturbed(module):
        assert not any(part.training for part in module.modules())
        assert not torch.is_grad_enabled()
        torch.rand(3), random.random(), np.random.rand(3)
    assert [part.training for part in module.modules()] == [True, False, True, True]
    assert torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # type: ignore[index]


def test_a_subset_is_evenly_spaced_and_so_is_a_subset_of_it() -> None:
    subset = ImageSubset(range(100), 12)
    assert subset.indices == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
    assert subset.thinned(3).indices == [0, 54, 99]  # the middle of twelve, 5.5, is rounded to an even index
    assert subset.thinned(50).indices == subset.indices
    assert ImageSubset([], 5).indices == []


class Brightness(nn.Module):
    """A module whose loss is the mean of its images plus noise of the masks' generator."""

    device = torch.device("cpu")
    held_out_loss = "brightness"

    @property
    def objective(self) -> nn.Module:
        return self

    def views(self, images: Tensor) -> Tensor:
        return images

    def forward(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"brightness": images.double().mean() + torch.rand((), generator=generator)}


def test_the_held_out_loss_is_the_mean_over_images_and_its_error_that_over_masks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lit_splitmask.selection.snapshot.BATCH_SIZE", 2)
    images = ImageSubset([{"image": torch.full((1, 2, 2), value)} for value in (10.0, 20.0, 60.0)], 100)
    for seed in (0, 1):
        value, error = Snapshot(Brightness(), images, images, 0, seed).held_out_loss
        noise = torch.tensor([
            [float(torch.rand((), generator=generator_for(seed, "signal masks", draw, batch))) for batch in range(2)]
            for draw in range(4)
        ])  # fmt: skip
        draws = (30 + 60 + noise @ torch.tensor([2.0, 1.0])) / 3  # two images in the first batch, one in the second
        assert value == pytest.approx(float(draws.mean()), rel=1e-6)
        assert error == pytest.approx(float(draws.std()) / 2, rel=1e-4)


class Losses:
    """In place of a snapshot: known losses of eight held-out and of any training images."""

    train, held_out = ImageSubset(range(100), 100), ImageSubset(range(8), 8)
    held_out_loss = (3.0, 0.3)

    def loss(self, images: ImageSubset) -> tuple[float, float]:
        assert images.indices == self.train.thinned(8).indices
        return 2.0, 0.4


def test_the_loss_gap_is_the_difference_to_as_many_training_images() -> None:
    snapshot: Any = Losses()
    assert LossGap().measure(snapshot) == pytest.approx((1.0, 0.5))


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


def test_the_sizes_of_a_module_count_its_multiply_adds() -> None:
    module = pretrain_module()
    images = ImageSubset(range(20), 20)
    num_parameters = sum(parameter.numel() for parameter in module.vit.parameters())
    assert Sizes.of(module, images, images.thinned(5), 3) == Sizes(20, 5, 3, width=32, macs=16 * num_parameters)
    assert Sizes.of(nn.Linear(2, 2), images, images, 0) == Sizes(20, 20, 0, width=0, macs=0)


def test_as_many_evaluations_are_affordable_as_fit_into_their_share_of_the_training() -> None:
    sizes = Sizes(num_train=100, num_held_out=50, num_classes=0, width=8, macs=1000)
    amount = {"steps": 1000, "images_per_step": 8, "most_cost": 0.05}
    assert affordable_evaluations([RankMe()], sizes, **amount) == pytest.approx(0.05 * 1000 * 8 / 0.5 / 50)
