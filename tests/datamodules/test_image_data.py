"""Budget, epochs, samplers and loaders, which all datamodules share; tested on an image folder."""

import numpy as np
import pytest
import torch
from folder_data import MakeData, batches, ready, same, stand_in

from lit_splitmask.datamodules import Budget
from lit_splitmask.errors import UserError


def test_batches_need_no_trainer(make_data: MakeData) -> None:
    data = ready(make_data())
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 3, 16, 16)
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert data.num_classes == 3
    assert data.class_names == ["disc", "square", "stripes"]
    labels = torch.tensor(data.train_samples.labels)
    assert torch.equal(labels[batch["index"]], batch["label"])


def test_iterating_leaves_torchs_randomness_alone(make_data: MakeData) -> None:
    data = ready(make_data())
    before = torch.random.get_rng_state()
    batches(data, 2)
    list(data.val_dataloader())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_gives_another_run_on_the_same_splits(make_data: MakeData) -> None:
    one, other = ready(make_data()), ready(make_data(seed=1))
    assert one.index.splits == other.index.splits
    assert not same(batches(one, 1), batches(other, 1))


def test_an_image_is_augmented_differently_in_every_pass(make_data: MakeData) -> None:
    data = ready(make_data(batch_size=21, budget=Budget(steps=2), num_epochs=1))
    first, second = batches(data, 2)
    assert sorted(first["index"].tolist()) == sorted(second["index"].tolist()) == list(range(21))
    order = [batch["index"].argsort() for batch in (first, second)]
    differ = (first["image"][order[0]] != second["image"][order[1]]).flatten(1).any(dim=1)
    assert differ.all()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_share_every_step(make_data: MakeData, accumulate: int) -> None:
    whole = batches(ready(make_data()), 3)
    shares = []
    for rank in range(2):
        data = make_data()
        data.trainer = stand_in(world_size=2, global_rank=rank, accumulate_grad_batches=accumulate)  # type: ignore
        shares.append(batches(ready(data), 3 * accumulate))
    for step, batch in enumerate(whole):
        parts = [share[step * accumulate + m] for m in range(accumulate) for share in shares]
        for name, values in batch.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), values)
    assert len({tuple(share[0]["index"].tolist()) for share in shares}) == 2


def test_two_processes_evaluate_every_image_once(make_data: MakeData) -> None:
    seen: list[int] = []
    for rank in range(2):
        data = make_data()
        data.trainer = stand_in(world_size=2, global_rank=rank)  # type: ignore[assignment]
        loader = ready(data, "test").test_dataloader()
        seen += torch.cat([batch["index"] for batch in loader]).tolist()
    assert sorted(seen) == list(range(6))


def test_fewer_images_than_processes_cannot_be_evaluated(make_data: MakeData) -> None:
    data = make_data()
    data.trainer = stand_in(world_size=7)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"6 image\(s\) cannot be divided among 7 processes"):
        ready(data, "test").test_dataloader()


@pytest.mark.parametrize("world_size", [2, 3, 30])
def test_processes_predict_every_image_once(make_data: MakeData, world_size: int) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        data = make_data()
        data.trainer = stand_in(world_size=world_size, global_rank=rank)  # type: ignore[assignment]
        data.setup("predict")
        seen += [index for batch in data.predict_dataloader() for index in batch["index"].tolist()]
    assert sorted(seen) == list(range(30))


def test_fewer_images_than_processes_cannot_be_predicted(make_data: MakeData) -> None:
    data = make_data()
    data.trainer = stand_in(world_size=31)  # type: ignore[assignment]
    data.setup("predict")
    with pytest.raises(UserError, match=r"30 image\(s\) cannot be divided among 31 processes.*--trainer\.devices=30"):
        data.predict_dataloader()


@pytest.mark.parametrize("way", ["only_predict", "a trainer that predicts"])
def test_nothing_is_prepared_where_images_are_only_predicted(make_data: MakeData, way: str) -> None:
    data = make_data()
    if way == "only_predict":
        data.only_predict()
    else:
        data.trainer = stand_in(predicting=True)  # type: ignore[assignment]
    assert data.predicts_only
    data.prepare_data()
    assert not data.index_dir.exists()
    data.setup("predict")
    assert len(data.predict_paths) == 30
    with pytest.raises(UserError, match=r"prepare_data\(\)"):
        data.setup("fit")


def test_a_trainer_that_does_not_predict_prepares_everything(make_data: MakeData) -> None:
    data = make_data()
    data.trainer = stand_in(predicting=False)  # type: ignore[assignment]
    assert not data.predicts_only
    assert len(ready(data).train_samples) == 21


def test_a_batch_that_processes_cannot_divide_is_refused(make_data: MakeData) -> None:
    data = make_data(batch_size=9)
    data.trainer = stand_in(world_size=2)  # type: ignore[assignment]
    with pytest.raises(UserError, match="batch_size=9"):
        ready(data)


def test_a_share_of_the_labels_is_used(make_data: MakeData) -> None:
    some, few = ready(make_data(label_share=0.5)), ready(make_data(label_share=0.01))
    assert sorted(few.train_samples.labels) == [0, 1, 2]
    assert set(few.train_samples.files) < set(some.train_samples.files)
    assert few.schedule.num_images == 3
    assert few.index.splits == some.index.splits
    assert set(batches(few, 1)[0]["index"].tolist()) == {0, 1, 2}


def test_the_budget_is_cut_into_epochs(make_data: MakeData) -> None:
    data = ready(make_data(budget=Budget(passes=10), num_epochs=4))
    assert data.schedule.steps == 28  # 210 images, 8 at a time, are 27 steps: four epochs of 7
    assert data.steps_per_epoch == 7
    assert len(data.train_dataloader()) == 7
    assert data.schedule.describe().startswith("21 images x 10.67 passes = 224 images seen")


def test_a_batch_may_be_larger_than_the_dataset(make_data: MakeData) -> None:
    (batch,) = batches(ready(make_data(batch_size=50, budget=Budget(steps=1), num_epochs=1)), 1)
    assert np.bincount(batch["index"], minlength=21).tolist().count(2) == 13  # 50 = 21 · 2 + 8
    assert batch["image"].shape[0] == 50


def test_one_channel_is_the_luminance(make_data: MakeData) -> None:
    colour, grey = (ready(make_data(channels=channels)) for channels in (3, 1))
    (one,), (other,) = batches(colour, 1), batches(grey, 1)
    assert other["image"].shape == (8, 1, 16, 16)
    weights = torch.tensor([0.299, 0.587, 0.114])
    expected = torch.einsum("bchw,c->bhw", one["image"].float(), weights)
    assert (other["image"][:, 0] - expected).abs().max() <= 0.6
    assert grey.pixel_mean == (pytest.approx(sum(w * m for w, m in zip(weights, colour.pixel_mean, strict=True))),)
    assert len(grey.pixel_std) == 1


def test_using_a_datamodule_before_setup_is_refused(make_data: MakeData) -> None:
    data = make_data()
    for use in (lambda: data.schedule, lambda: data.num_classes, lambda: data.index, lambda: data.setup("fit")):
        with pytest.raises(UserError, match=r"prepare_data\(\)"):
            use()


@pytest.mark.parametrize(
    "setting",
    [
        {"image_size": 0},
        {"batch_size": -1},
        {"num_epochs": 0},
        {"channels": 2},
    ],
)
def test_impossible_settings_are_refused(make_data: MakeData, setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        make_data(**setting)
