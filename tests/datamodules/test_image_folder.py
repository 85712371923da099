import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jsonargparse
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_splitmask.datamodules import Budget, FinetuneAugment, ImageFolder
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions

MakeFolder = Callable[..., Path]
MakeData = Callable[..., ImageFolder]


@pytest.fixture
def make_data(tmp_path: Path, class_folder: MakeFolder) -> MakeData:
    """Makes a datamodule over a folder of 30 images in 3 classes, 21 of them to train on."""
    root = class_folder(per_class=10)

    def make(**settings: object) -> ImageFolder:
        small = {"image_size": 16, "batch_size": 8, "num_workers": 0, "index_dir": str(tmp_path / "runs")}
        return ImageFolder(str(root), **(small | settings))  # type: ignore[arg-type]

    return make


def noise(number: int) -> np.ndarray:
    """An image that no other number has."""
    return np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def ready(data: ImageFolder, stage: str = "fit") -> ImageFolder:
    data.prepare_data()
    data.setup(stage)
    return data


def batches(data: ImageFolder, count: int) -> list[dict[str, Tensor]]:
    iterator = iter(data.train_dataloader())
    return [next(iterator) for _ in range(count)]


def same(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def stand_in(**settings: object) -> SimpleNamespace:
    """As much of a trainer as the datamodule looks at."""
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(max_steps=-1))
    plain = {
        "world_size": 1,
        "global_rank": 0,
        "accumulate_grad_batches": 1,
        "global_step": 0,
        "max_steps": -1,
        "max_epochs": -1,
    }
    return SimpleNamespace(fit_loop=loop, **(plain | settings))


def test_it_works_without_a_trainer(make_data: MakeData) -> None:
    data = ready(make_data())
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 3, 16, 16)
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert data.num_classes == 3
    assert data.class_names == ["disc", "square", "stripes"]
    labels = torch.tensor(data.train_samples.labels)
    assert torch.equal(labels[batch["index"]], batch["label"])


def test_constructing_does_nothing(tmp_path: Path) -> None:
    ImageFolder("nowhere", index_dir=str(tmp_path / "runs"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("augment", [None, FinetuneAugment()], ids=["pretrain", "finetune"])
@pytest.mark.parametrize("cache_gb", [8.0, 0.0])
def test_workers_change_nothing(make_data: MakeData, augment: FinetuneAugment | None, cache_gb: float) -> None:
    settings = {"augment": augment, "cache_gb": cache_gb}
    alone = ready(make_data(**settings))
    for num_workers in (1, 4):
        helped = ready(make_data(**settings, num_workers=num_workers))
        assert same(batches(alone, 8), batches(helped, 8))  # each buffer of each worker is used again
    for name in ("val_dataloader", "test_dataloader", "predict_dataloader"):
        assert same(list(getattr(alone, name)()), list(getattr(helped, name)()))


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


def test_an_image_is_augmented_anew_in_every_pass(make_data: MakeData) -> None:
    data = ready(make_data(batch_size=21, budget=Budget(steps=2), num_epochs=1))
    first, second = batches(data, 2)
    assert sorted(first["index"].tolist()) == sorted(second["index"].tolist()) == list(range(21))
    places = [batch["index"].argsort() for batch in (first, second)]
    differ = (first["image"][places[0]] != second["image"][places[1]]).flatten(1).any(dim=1)
    assert differ.all()


def test_evaluation_sees_every_image_once_in_order(make_data: MakeData) -> None:
    data = ready(make_data(eval_batch_size=2))
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        files = data.index.splits[split]
        assert torch.cat([batch["index"] for batch in loader]).tolist() == list(range(len(files)))
        assert torch.cat([batch["label"] for batch in loader]).tolist() == data.index.labels(files)


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
    with pytest.raises(UserError, match=r"6 image\(s\) cannot be shared among 7 processes"):
        ready(data, "test").test_dataloader()


def test_a_batch_that_processes_cannot_share_is_refused(make_data: MakeData) -> None:
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


def test_statistics_can_be_the_datasets_own(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready(make_data(statistics="dataset"))
    reader = data.source.read
    pixels = [reader(file).reshape(-1, 3) / 255 for file in data.index.splits["train"]]
    assert data.pixel_mean == pytest.approx(np.mean([image.mean(0) for image in pixels], axis=0), abs=1e-4)
    spread = np.mean([((image - data.pixel_mean) ** 2).mean(0) for image in pixels], axis=0) ** 0.5
    assert data.pixel_std == pytest.approx(spread, abs=1e-4)
    monkeypatch.setattr("lit_splitmask.images.statistics.decode", None)
    assert ready(make_data(statistics="dataset")).pixel_mean == data.pixel_mean
    assert ready(make_data(statistics="half")).pixel_std == (0.5, 0.5, 0.5)


def test_without_splits_validation_is_empty_and_a_test_is_an_error(flat_folder: MakeFolder, tmp_path: Path) -> None:
    options = SplitOptions(val_share=0.0)
    data = ready(ImageFolder(str(flat_folder(5)), 16, num_workers=0, splits=options, index_dir=str(tmp_path / "runs")))
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match="no test split"):
        data.test_dataloader()
    assert sum(len(batch["label"]) for batch in data.predict_dataloader()) == 5
    assert data.num_classes == 0


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_vanishes_later_is_named(make_data: MakeData, num_workers: int) -> None:
    data = ready(make_data(cache_gb=0.0, num_workers=num_workers))
    victim = data.index.root / data.train_samples.files[3]
    victim.unlink()
    with pytest.raises(UserError, match=f"^The image {victim} does not exist"):
        list(data.train_dataloader())


def test_names_may_be_of_any_script_and_even_no_text(tmp_path: Path) -> None:
    root = tmp_path / "bilder"
    names = [b"\xe5\x9b\xbe\xe5\x83\x8f", "é".encode(), "e\u0301".encode(), b"\xff\xfe", b"a b\nc", "😀".encode()]
    for label in ("α", "β"):
        for number, name in enumerate(names):
            path = root / label / os.fsdecode(name + b".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(number + 10 * (label == "β"))).save(path)
    data = ready(ImageFolder(str(root), 16, batch_size=4, num_workers=1, index_dir=str(tmp_path / "runs")))
    again = ready(ImageFolder(str(root), 16, batch_size=4, num_workers=0, index_dir=str(tmp_path / "runs")))
    assert data.class_names == ["α", "β"]
    assert sum(map(len, data.index.splits.values())) == 12
    assert same(batches(data, 2), batches(again, 2))


def test_a_pool_adds_images_to_pre_train_on(make_data: MakeData, tmp_path: Path) -> None:
    alone = ready(make_data())
    pool = tmp_path / "more" / "deep"
    pool.mkdir(parents=True)
    for number in range(100, 105):
        Image.fromarray(noise(number)).save(pool / f"{number} ü.png")
    data = ready(make_data(pool=[str(tmp_path / "more")], budget=Budget(passes=1), batch_size=13, num_epochs=1))
    assert len(data.train_samples) == 21 + 5
    assert data.train_samples.labels.tolist() == [*alone.train_samples.labels.tolist(), *[-1] * 5]
    assert data.index.splits == alone.index.splits
    assert data.class_names == alone.class_names
    for place, number in enumerate(range(100, 105), start=21):
        np.testing.assert_array_equal(data.source.read(data.train_samples.files[place]), noise(number))
    assert data.source.read(data.train_samples.files[0]).shape == alone.source.read(alone.train_samples.files[0]).shape
    seen = torch.cat([batch["index"] for batch in data.train_dataloader()])
    assert sorted(seen.tolist()) == list(range(26))


def test_a_pools_image_that_is_tested_on_is_left_out(
    make_data: MakeData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = ready(make_data())
    held_out = [alone.index.splits["test"][0], alone.index.splits["val"][0]]
    pool = tmp_path / "more"
    pool.mkdir()
    for number, file in enumerate([*held_out, alone.index.splits["train"][0]]):
        Image.open(alone.index.root / file).save(pool / f"{number}.bmp")  # the same pixels in another file
    data = ready(make_data(pool=[str(pool)]))
    assert len(data.train_samples) == 21 + 1
    assert f"2 images of {pool} are left out" in caplog.text


def test_one_channel_is_the_luminance(make_data: MakeData) -> None:
    colour, grey = (ready(make_data(channels=channels)) for channels in (3, 1))
    (one,), (other,) = batches(colour, 1), batches(grey, 1)
    assert other["image"].shape == (8, 1, 16, 16)
    weights = torch.tensor([0.299, 0.587, 0.114])
    expected = torch.einsum("bchw,c->bhw", one["image"].float(), weights)
    assert (other["image"][:, 0] - expected).abs().max() <= 0.6
    assert grey.pixel_mean == (pytest.approx(sum(w * m for w, m in zip(weights, colour.pixel_mean, strict=True))),)
    assert len(grey.pixel_std) == 1


def test_using_it_too_early_is_a_users_error(make_data: MakeData) -> None:
    data = make_data()
    for use in (lambda: data.schedule, lambda: data.num_classes, lambda: data.index, lambda: data.setup("fit")):
        with pytest.raises(UserError, match=r"prepare_data\(\)"):
            use()


@pytest.mark.parametrize(
    "setting",
    [
        {"image_size": 0},
        {"batch_size": -1},
        {"eval_batch_size": 0},
        {"num_epochs": 0},
        {"crop_ratio": 1.5},
        {"channels": 2},
    ],
)
def test_impossible_settings_are_refused(make_data: MakeData, setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        make_data(**setting)


@pytest.fixture
def parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageFolder, "data")
    return parser


def test_it_can_be_configured_from_the_command_line(parser: jsonargparse.ArgumentParser) -> None:
    arguments = [
        "--data.root=images",
        "--data.budget.steps=7",
        "--data.splits.val_share=0.3",
        "--data.splits.labels=none",
        "--data.augment=lit_splitmask.datamodules.PretrainAugment",
        "--data.augment.color_jitter=0.8",
    ]
    data = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert data.budget == Budget(steps=7)
    assert data.split_options == SplitOptions(val_share=0.3, labels="none")
    assert data.augment.color_jitter == 0.8


def test_making_everything_warns_of_nothing(make_data: MakeData) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches(ready(make_data(num_workers=1)), 1)


@pytest.mark.parametrize(("image_size", "told"), [(16, False), (400, True)])
def test_images_that_crops_enlarge_are_told_of(
    image_size: int, told: bool, class_folder: MakeFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        ImageFolder(str(class_folder(per_class=2)), image_size, index_dir=str(tmp_path / "runs")).prepare_data()
    assert (f"crops of {image_size} px enlarge them" in caplog.text) is told
