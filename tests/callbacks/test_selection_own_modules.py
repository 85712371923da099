"""``OverfitAwareCheckpoint`` at its defaults, in LightningModules and with loaders that are not of this project."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from own_modules import SMALL, Images, Own, Plain, fit, steps_of
from tiny_runs import one_thread, tiny_trainer  # noqa: F401
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Subset

from lit_splitmask.callbacks import EstimateTime, Linear, OverfitAwareEarlyStopping, ShortFinetune
from lit_splitmask.errors import UserError
from lit_splitmask.selection.rule import Rule

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of this project, all of them warnings."""
    records = [record for record in caplog.records if record.name.startswith("lit_splitmask") and record.levelno > 20]
    assert all(record.levelname == "WARNING" for record in records)
    return [record.getMessage() for record in records]


def test_at_its_defaults_it_evaluates_a_plain_module_on_a_plain_loader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, held_out = Images(5000), Images(500)
    loader = DataLoader(train, batch_size=64)
    checkpoint = fit(tmp_path, Own(), loader, trainer={"max_epochs": 20}, images=(train, held_out))
    assert steps_of(checkpoint) == [79 * epoch for epoch in range(1, 21)]
    assert checkpoint.history[0].values.keys() == {"rankme"}  # no loss that is NaN
    assert (tmp_path / "c" / "best.ckpt").exists()
    assert not warnings(caplog)


def test_with_labels_it_measures_on_as_many_images_as_five_evaluations_afford(tmp_path: Path) -> None:
    train, held_out = Images(5000), Images(500)
    loader = DataLoader(train, batch_size=64)
    checkpoint = fit(tmp_path, Own(), loader, trainer={"max_epochs": 20}, images=(train, held_out), num_classes=2)
    assert steps_of(checkpoint) == [79 * epoch for epoch in (4, 8, 12, 16, 20)]
    assert checkpoint.history[0].values.keys() == {"rankme", "knn", "linear"}
    assert checkpoint.history[-1].values["linear"] > 0.5


def test_without_images_it_measures_on_those_of_the_validation_loader(tmp_path: Path) -> None:
    loaders = DataLoader(Images(640), batch_size=64), DataLoader(Images(60), batch_size=64)
    checkpoint = fit(tmp_path, Own(), *loaders, trainer={"max_epochs": 10})
    assert len(checkpoint.history) == 10
    assert all(reading.values.keys() == {"rankme"} for reading in checkpoint.history)


def test_validation_images_that_cannot_be_measured_are_reported_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Pooled(Own):
        def features(self, images: Tensor) -> Any:
            return [super().features(images)]

    checkpoint = fit(tmp_path, Pooled(), DataLoader(Images(64), batch_size=8), DataLoader(Images(8), batch_size=8))
    assert not checkpoint.history
    assert "measures nothing, the last checkpoint is kept" in caplog.text
    assert "features(images) returns a list, not a tensor" in caplog.text


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "image"])
def test_items_may_be_tuples_lists_dicts_or_images(tmp_path: Path, kind: str) -> None:
    train, held_out = Images(640, kind), Images(64, kind)
    given = {"images": (train, held_out), "num_classes": 0 if kind == "image" else 2}
    checkpoint = fit(tmp_path, Own(), DataLoader(train, batch_size=32), trainer={"max_epochs": 20}, **given)
    assert checkpoint.history
    expected = {"rankme"} if kind == "image" else {"rankme", "knn", "linear"}
    assert checkpoint.history[0].values.keys() == expected


def test_parts_of_a_dataset_may_be_given(tmp_path: Path) -> None:
    every = Images(700)
    parts = Subset(every, range(600)), Subset(every, range(600, 650))  # as random_split makes them
    checkpoint = fit(tmp_path, Own(), DataLoader(parts[0], batch_size=60), trainer={"max_epochs": 20}, images=parts)
    assert len(checkpoint.history) == 20


class Stream(IterableDataset):
    """Images without a length, ``count`` of them."""

    def __init__(self, count: int) -> None:
        self.images = Images(count)

    def __iter__(self) -> Iterator[Any]:
        return (self.images[n] for n in range(len(self.images)))


@pytest.mark.parametrize("max_epochs", [-1, 1000])
@pytest.mark.parametrize("count", [70, 10_000])
def test_a_stream_with_max_steps_is_evaluated_within_its_epochs(tmp_path: Path, max_epochs: int, count: int) -> None:
    loader = DataLoader(Stream(count), batch_size=10)
    trainer = {"max_epochs": max_epochs, "max_steps": 60}
    checkpoint = fit(tmp_path, Own(), loader, trainer=trainer, images=(Images(20), Images(10)), evaluations=5)
    assert steps_of(checkpoint) == [12, 24, 36, 48, 60]
    assert {path.name for path in (tmp_path / "c").glob("*.ckpt")} >= {"best.ckpt", "last.ckpt"}


def test_a_stream_with_accumulated_batches_is_evaluated_once_a_turn(tmp_path: Path) -> None:
    trainer = {"max_epochs": -1, "max_steps": 6, "accumulate_grad_batches": 3}
    checkpoint = fit(
        tmp_path, Own(), DataLoader(Stream(400), batch_size=20), trainer=trainer, images=(Images(20), Images(12))
    )
    assert steps_of(checkpoint) == [2, 4, 6]  # of 60 images a step: 36 may be measured
    assert int(torch.load(tmp_path / "c" / "last.ckpt", weights_only=True)["global_step"]) == 6


def test_a_stream_with_epochs_alone_is_refused(tmp_path: Path) -> None:
    loader = DataLoader(Stream(70), batch_size=10)
    with pytest.raises(UserError, match=r"no length, as with an IterableDataset, so max_epochs=3 .*max_steps"):
        fit(tmp_path, Own(), loader, trainer={"max_epochs": 3}, images=(Images(20), Images(10)))


class Batches(IterableDataset):
    """Whole batches of 32 images."""

    def __iter__(self) -> Iterator[Any]:
        images = Images(32)
        return iter([[images.images, images.labels]] * 10)

    def __len__(self) -> int:
        return 10


def test_loaders_without_a_batch_size_are_counted(tmp_path: Path) -> None:
    train, held_out = Images(320), Images(32)
    sampler = BatchSampler(RandomSampler(train), batch_size=32, drop_last=False)
    loaders = {
        "sampler": DataLoader(train, batch_sampler=sampler),
        "batches": DataLoader(Batches(), batch_size=None),
        "several": [DataLoader(train, batch_size=32)],
    }
    for name, loader in loaders.items():
        module = Own()
        if name == "several":
            module.training_step = lambda batch, batch_idx, of=module: Own.training_step(of, batch[0], 0)  # type: ignore[method-assign]
        checkpoint = fit(tmp_path / name, module, loader, trainer={"max_epochs": 4}, images=(train, held_out))
        assert len(checkpoint.history) == 4, name  # 1,280 images, of which a tenth may be measured


def test_accumulated_batches_count_as_one_step(tmp_path: Path) -> None:
    train, held_out = Images(320), Images(32)
    trainer = {"max_epochs": 4, "accumulate_grad_batches": 2}
    checkpoint = fit(tmp_path, Own(), DataLoader(train, batch_size=32), trainer=trainer, images=(train, held_out))
    assert steps_of(checkpoint) == [5, 10, 15, 20]


class Featureless(Plain):
    features = 512


def test_nothing_to_measure_is_a_warning_that_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, loader = Images(40), DataLoader(Images(40), batch_size=8)
    pair = {"images": (images, images)}
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (
            Featureless(),
            pair,
            r"no signal can be measured. held_out_loss needs .*; rankme needs a method features\(images\)",
        ),
        (
            Own(),
            {},
            "there are no held-out images .* Give OverfitAwareCheckpoint images=.train, held_out., or .* loader",
        ),
        (Own(), {"images": (images, [])}, "no held-out images .* with at least one image each"),
        (Own(), pair, r"too short .* sees 40 images \(5 steps of 8\), .* most_cost=0.05 .* raise most_cost to 2.5"),
        (Own(), pair | {"signals": [Linear()]}, r"no signal can be measured. linear needs labels"),
        (Own(), pair | {"signals": [ShortFinetune()], "num_classes": 2}, "finetune needs a ViT of this project"),
    ]
    for number, (module, settings, message) in enumerate(cases):
        caplog.clear()
        folder = tmp_path / str(number)
        stopping = [OverfitAwareEarlyStopping()]
        checkpoint = fit(folder, module, loader, trainer={"max_epochs": 1}, callbacks=stopping, **settings)
        assert not checkpoint.history
        assert [path.name for path in (folder / "c").iterdir()] == ["last.ckpt"]
        (warning,) = warnings(caplog)
        start = "OverfitAwareCheckpoint measures nothing, the last checkpoint is kept and OverfitAwareEarlyStopping does not stop"
        assert warning.startswith(start)
        assert re.search(message, warning), warning


def test_the_cost_that_is_proposed_is_enough(tmp_path: Path) -> None:
    images, loader = Images(40), DataLoader(Images(40), batch_size=8)
    given = {"trainer": {"max_epochs": 5}, "images": (images, images)}
    assert len(fit(tmp_path / "a", Own(), loader, most_cost=0.05, **given).history) == 0
    assert len(fit(tmp_path / "b", Own(), loader, most_cost=0.51, **given).history) == 5


def test_too_few_evaluations_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, loader = Images(400), DataLoader(Images(400), batch_size=8)
    given: dict[str, Any] = {"images": (images, images), "most_cost": 1e9}
    assert len(fit(tmp_path / "a", Own(), loader, trainer={"max_epochs": 1}, **given).history) == 1
    assert "evaluated only once, at the end" in caplog.text
    assert "more and shorter epochs" in caplog.text
    caplog.clear()
    stopping = [OverfitAwareEarlyStopping()]
    fit(tmp_path / "b", Own(), loader, trainer={"max_epochs": 3}, callbacks=stopping, **given)
    assert "only 3 evaluations" in caplog.text
    caplog.clear()
    fit(tmp_path / "c", Own(), loader, trainer={"max_epochs": 2}, rule=Rule(("linear",)), **given)
    assert "None of the signals that decide can be measured" in caplog.text
    assert "linear needs labels" in caplog.text


def test_trying_a_module_before_training_changes_nothing(tmp_path: Path) -> None:
    class Noisy(Own):
        def features(self, images: Tensor) -> Any:
            return super().features(images) + torch.rand(4)

    weights = []
    for settings in ({"images": (Images(40), Images(40)), "most_cost": 1e9}, {}):
        torch.manual_seed(0)
        module = Noisy()
        loader = DataLoader(Images(400), batch_size=8, shuffle=True)
        fit(tmp_path / str(len(weights)), module, loader, trainer={"max_epochs": 2}, **settings)
        weights.append(module.layer.weight.detach().clone())
    assert torch.equal(*weights)


def test_attributes_of_other_meaning_do_not_disturb(tmp_path: Path) -> None:
    module = Own()
    module.vit = nn.Linear(2, 2)  # timm's and torchvision's ViTs have neither num_patches nor embed_dim
    module.optim = type("", (), {"warmup": None})()  # type: ignore[assignment]
    module.objective = "cluster"  # type: ignore[assignment]
    module.images_per_step = None  # type: ignore[assignment]
    checkpoint = fit(tmp_path, module, DataLoader(Images(40), batch_size=40), **SMALL)
    assert all(math.isfinite(reading.values["rankme"]) for reading in checkpoint.history)


def test_early_stopping_stops_a_module_that_no_longer_improves(tmp_path: Path) -> None:
    class Collapsing(Own):
        def features(self, images: Tensor) -> Any:
            found = super().features(images)
            keep = 4 if self.current_epoch < 2 else 1
            return torch.cat([found[:, :keep], torch.zeros_like(found[:, keep:])], dim=1)

    images = Images(400)
    given: dict[str, Any] = {"trainer": {"max_epochs": 20}, "images": (images, Images(40))}
    module = Collapsing()
    fit(tmp_path, module, DataLoader(images, batch_size=40), callbacks=[OverfitAwareEarlyStopping()], **given)
    assert module.trainer.current_epoch < 20


def test_the_time_estimate_says_that_it_needs_a_datamodule_of_this_project(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="EstimateTime works only with the datamodules of this project"):
        tiny_trainer(tmp_path, callbacks=[EstimateTime()], max_epochs=1).fit(Own(), DataLoader(Images(8)))
