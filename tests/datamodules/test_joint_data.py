"""Batches of images with labels and without: which images, in which numbers, on any number of processes, from any step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folder_data import batches, noise, ready, same, stand_in
from PIL import Image

from lit_splitmask.datamodules import Budget, ImageFolder, Manifest
from lit_splitmask.errors import UserError
from lit_splitmask.loading.sampler import MixtureSampler, WrapAroundSampler

MakeFolder = Callable[..., Path]


@pytest.fixture
def make(class_folder: MakeFolder, tmp_path: Path) -> Callable[..., ImageFolder]:
    root = class_folder(per_class=10)  # 21 of 30 images to train on

    def make_data(**settings: Any) -> ImageFolder:
        defaults: dict[str, Any] = {"image_size": 32, "batch_size": 8, "num_workers": 0, "num_epochs": 2}
        defaults |= {"index_dir": str(tmp_path / "runs"), "label_share": 0.5, "unlabelled_share": 0.5}
        return ImageFolder(str(root), **(defaults | {"budget": Budget(steps=6)} | settings))

    return make_data


def sampler(rank: int = 0, world_size: int = 1, step: int = 0, **settings: Any) -> MixtureSampler:
    defaults: dict[str, Any] = {
        "unlabelled": 3 * 4 // (world_size * settings.get("accumulate", 1)),
        "steps_per_epoch": 5,
    }
    shape = {"rank": rank, "world_size": world_size, "global_step": lambda: step}
    return MixtureSampler(7, 11, 16, **(defaults | shape | settings))


def test_both_kinds_come_in_fixed_numbers_and_in_the_order_of_their_own_passes() -> None:
    keys = list(sampler())
    assert len(keys) == len(sampler()) == 5 * 16
    for start in range(0, len(keys), 16):
        assert sum(index >= 7 for _, index in keys[start : start + 16]) == 12
    labelled = [key for key in keys if key[1] < 7]
    assert labelled == list(WrapAroundSampler(7, 4, steps_per_epoch=5, global_step=lambda: 0))
    others = [index - 7 for _, index in keys if index >= 7]
    assert all(sorted(others[start : start + 11]) == list(range(11)) for start in range(0, 55, 11))


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (4, 1), (2, 2)])
def test_processes_share_the_batch_of_one(world_size: int, accumulate: int) -> None:
    one = list(sampler(accumulate=accumulate))
    parts = [list(sampler(rank, world_size, accumulate=accumulate)) for rank in range(world_size)]
    size = 16 // world_size // accumulate
    blocks = range(0, len(parts[0]), size)
    assert [key for start in blocks for part in parts for key in part[start : start + size]] == one


def test_a_later_start_continues_the_sequence() -> None:
    whole, later = list(sampler()), list(sampler(step=2))
    assert later[: 3 * 16] == whole[2 * 16 :]


def test_images_beyond_the_label_share_have_no_label_and_the_later_indices(make: Callable[..., ImageFolder]) -> None:
    data, plain = ready(make()), ready(make(unlabelled_share=0.0))
    chosen = list(plain.train_samples.files)
    assert list(data.train_samples.files)[: len(chosen)] == chosen
    labels = data.train_samples.labels
    assert labels[: len(chosen)].tolist() == plain.train_samples.labels.tolist()
    assert set(labels[len(chosen) :].tolist()) == {-1}
    assert len(set(data.train_samples.files)) == data.num_train_images == 21
    for batch in batches(data, 3):
        assert int((batch["label"] < 0).sum()) == 4
        assert bool(((batch["index"] >= len(chosen)) == (batch["label"] < 0)).all())


def test_a_budget_counts_the_images_with_labels(make: Callable[..., ImageFolder]) -> None:
    data = ready(make(budget=Budget(passes=8), num_epochs=1))
    num_labelled = int((data.train_samples.labels >= 0).sum())
    assert (data.schedule.num_images, data.schedule.batch_size) == (num_labelled, 4)
    assert data.schedule.steps == 8 * num_labelled // 4
    assert data.images_per_step == 8


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_from_a_later_step_are_the_same_with_workers(
    make: Callable[..., ImageFolder], num_workers: int
) -> None:
    whole = batches(ready(make()), 3)
    data = make(num_workers=num_workers)
    data.trainer = stand_in(global_step=1)  # type: ignore[assignment]
    assert same(batches(ready(data), 2), whole[1:])


@pytest.mark.parametrize(("share", "unlabelled"), [(0.01, 1), (0.3, 2), (0.5, 4), (0.99, 7)])
def test_each_kind_has_at_least_one_image(make: Callable[..., ImageFolder], share: float, unlabelled: int) -> None:
    (batch,) = batches(ready(make(unlabelled_share=share)), 1)
    assert int((batch["label"] < 0).sum()) == unlabelled


def held_out(data: ImageFolder | Manifest) -> set[bytes]:
    read, splits = data.source.read, data.source.splits
    return {read(file).tobytes() for name in ("val", "test") for file in splits[name].files}


def test_images_of_val_and_test_are_never_among_those_without_labels(
    make: Callable[..., ImageFolder], tmp_path: Path
) -> None:
    root = make().root
    for number in range(4):  # copies of images with another class's label, and in the pool
        Image.open(root / "disc" / f"disc{number:03d}.png").save(root / "square" / f"copy{number}.png")
    pool = tmp_path / "more"
    pool.mkdir()
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        Image.open(file).save(pool / f"{number}.png")
    Image.fromarray(noise(5)).save(pool / "new.png")
    data = ready(make(pool=[str(pool)]))
    hidden = [
        data.source.read(f)
        for f, label in zip(data.train_samples.files, data.train_samples.labels, strict=True)
        if label < 0
    ]
    assert len(hidden) > 15
    assert held_out(data)
    assert not held_out(data) & {image.tobytes() for image in hidden}


class NeedsLabels:
    needs_labels = True


@pytest.mark.parametrize("pooled", [False, True])
def test_rows_of_a_manifest_without_a_label_are_used_except_those_of_val_and_test(
    class_folder: MakeFolder, flat_folder: MakeFolder, tmp_path: Path, pooled: bool
) -> None:
    root = class_folder(per_class=8)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    split_of = ["train"] * 5 + ["val", "test", "test"]
    lines = ["path,label,split"]
    for number, file in enumerate(files):
        label = "" if number % 8 in (3, 4, 7) else file.split("/")[0]  # two of train, one of test, in each class
        lines.append(f"{file},{label},{split_of[number % 8]}")
    (root / "list.csv").write_text("\n".join(lines))
    settings: dict[str, Any] = {
        "image_size": 32,
        "batch_size": 8,
        "num_workers": 0,
        "index_dir": str(tmp_path / "runs"),
    }
    pool = [str(flat_folder(4))] if pooled else []
    data = Manifest(str(root / "list.csv"), budget=Budget(steps=2), unlabelled_share=0.5, pool=pool, **settings)
    data.trainer = stand_in(lightning_module=NeedsLabels())  # type: ignore[assignment]
    ready(data)
    samples = data.train_samples
    assert int((samples.labels >= 0).sum()) == 9
    unlabelled = {
        file for file, label in zip(samples.files, samples.labels, strict=True) if label < 0 and "//" not in file
    }
    assert unlabelled == {file for number, file in enumerate(files) if number % 8 in (3, 4)}
    assert data.source.splits["test"].all_labelled
    images = {data.source.read(file).tobytes() for file in samples.files}
    assert not held_out(data) & images
    assert any("//" in file for file in samples.files) == pooled


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, float("nan")])
def test_a_share_out_of_range_is_refused(make: Callable[..., ImageFolder], share: float) -> None:
    with pytest.raises(UserError, match="unlabelled_share="):
        make(unlabelled_share=share)


def test_images_that_all_lack_labels_are_refused(flat_folder: MakeFolder, tmp_path: Path) -> None:
    root = str(flat_folder())
    with pytest.raises(UserError, match=r"none of the .* training images has a label"):
        ready(
            ImageFolder(
                root, unlabelled_share=0.5, index_dir=str(tmp_path / "runs"), budget=Budget(steps=1), num_workers=0
            )
        )


def test_a_batch_of_one_image_cannot_hold_both_kinds(make: Callable[..., ImageFolder]) -> None:
    data = make(batch_size=2)
    data.trainer = stand_in(world_size=2)  # type: ignore[assignment]
    with pytest.raises(UserError, match="images of both kinds"):
        ready(data)


def test_a_tokenizer_is_fitted_on_both_kinds_and_steps_are_timed_as_mixed(make: Callable[..., ImageFolder]) -> None:
    data = ready(make())
    fitted = {int(index) for batch in data.fitting_dataloader(21) for index in batch["index"]}
    assert fitted == set(range(21))
    assert all(int((batch["label"] < 0).sum()) == 4 for batch in data.fitting_dataloader(None))
