"""Balanced sampling: how often classes and images come, in which numbers, on any number of processes, from any step."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_data import batches, noise, ready, same, stand_in
from PIL import Image

from lit_splitmask.datamodules import Budget, ImageFolder, Manifest
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.loading.sampler import Key, MixtureSampler, WrapAroundSampler, balanced_order, class_shares

LABELS = np.repeat([0, 1, 2], [30, 9, 3])

Make = Callable[..., ImageFolder]


def keys(strength: float, *, steps: int, step: int = 0, **shape: int) -> list[Key]:
    sampler = WrapAroundSampler(len(LABELS), 12, steps_per_epoch=steps, global_step=lambda: step, seed=3, **shape)
    sampler.balance(LABELS, strength)
    return list(sampler)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a datamodule of 18 training images of the class common and 3 of rare."""
    for split, counts in {"train": {"common": 18, "rare": 3}, "val": {"common": 2, "rare": 2}}.items():
        for name, count in counts.items():
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(noise(hash_of(split, name, number))).save(folder / f"{number}.png")

    def make_data(**settings: Any) -> ImageFolder:
        small: dict[str, Any] = {"image_size": 32, "batch_size": 8, "num_workers": 0, "num_epochs": 2}
        small |= {
            "budget": Budget(steps=6),
            "index_dir": str(tmp_path / "index"),
            "splits": SplitOptions(test_share=0.0),
        }
        return ImageFolder(str(tmp_path / "images"), **(small | settings))

    return make_data


def hash_of(split: str, name: str, number: int) -> int:
    return len(split) * 10_000 + len(name) * 100 + number


@pytest.mark.parametrize(("strength", "expected"), [(0.0, [30, 9, 3]), (1.0, [14, 14, 14]), (0.5, [21.7, 11.9, 6.9])])
def test_classes_get_their_shares_of_a_pass_of_the_same_length(strength: float, expected: list[float]) -> None:
    passes = [balanced_order(np.random.default_rng(seed), 42, labels=LABELS, strength=strength) for seed in range(200)]
    counts = np.array([np.bincount(LABELS[order], minlength=3) for order in passes])
    assert {len(order) for order in passes} == {42}
    by_hand = np.array([30.0, 9.0, 3.0]) ** (1 - strength)
    by_hand *= 42 / by_hand.sum()
    assert by_hand == pytest.approx(expected, rel=0.1)
    assert np.abs(counts - by_hand).max() < 1.0001  # rounded down or up
    assert counts.mean(axis=0) == pytest.approx(by_hand, abs=0.15)  # without a bias


def test_the_images_of_a_class_come_equally_often_and_the_rest_changes_from_pass_to_pass() -> None:
    passes = [balanced_order(np.random.default_rng(seed), 42, labels=LABELS, strength=1.0) for seed in range(20)]
    for order in passes:
        times = np.bincount(order, minlength=42)
        for label in range(3):
            own = times[label == LABELS]
            assert own.max() - own.min() <= 1
    first = {tuple(sorted(order[LABELS[order] == 0])) for order in passes}
    assert len(first) == 20
    assert len({tuple(order) for order in passes}) == 20


def test_an_image_that_comes_twice_in_a_pass_is_augmented_anew() -> None:
    found = keys(1.0, steps=7)  # two passes
    assert max(Counter(index for _, index in found[:42]).values()) > 1
    assert len(set(found)) == len(found) == 84


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_later_start_and_more_processes_read_the_same_sequence(repeats: int) -> None:
    whole = keys(1.0, steps=12, repeats=repeats)
    assert keys(1.0, steps=5, step=7, repeats=repeats) == whole[7 * 12 :]
    parts = [keys(1.0, steps=12, repeats=repeats, rank=rank, world_size=2) for rank in range(2)]
    assert [key for start in range(0, 72, 6) for part in parts for key in part[start : start + 6]] == whole
    assert len(set(whole)) == len(whole)


def test_a_class_without_images_has_no_share() -> None:
    assert class_shares(np.array([6, 0, 2]), 1.0).tolist() == [0.5, 0, 0.5]
    assert class_shares(np.array([6, 0, 2]), 0.0).tolist() == [0.75, 0, 0.25]


def test_a_datamodule_draws_classes_equally_often_within_the_same_budget(make: Make) -> None:
    plain, even = (
        ready(make(budget=Budget(passes=4), batch_size=7)),
        ready(make(balance=1.0, budget=Budget(passes=4), batch_size=7)),
    )
    assert plain.schedule == even.schedule
    assert plain.class_shares == pytest.approx([18 / 21, 3 / 21])
    assert even.class_shares == [0.5, 0.5]
    labels = [int(label) for batch in batches(even, 6) for label in batch["label"]]  # two passes of 21 images
    assert abs(labels.count(0) - labels.count(1)) <= 2
    of_plain = [int(label) for batch in batches(plain, 6) for label in batch["label"]]
    assert (of_plain.count(0), of_plain.count(1)) == (36, 6)


def test_balance_is_the_same_from_any_step_with_workers_and_on_two_processes(make: Make) -> None:
    whole = batches(ready(make(balance=1.0)), 3)
    later = ready(make(balance=1.0))
    later.trainer = stand_in(global_step=1)  # type: ignore[assignment]
    assert same(batches(later, 2), whole[1:])
    assert same(batches(ready(make(balance=1.0, num_workers=1)), 3), whole)
    parts = []
    for rank in range(2):
        data = make(balance=1.0)
        data.trainer = stand_in(world_size=2, global_rank=rank)  # type: ignore[assignment]
        parts.append(batches(ready(data), 3))
    for one, first, second in zip(whole, *parts, strict=True):
        assert [*first["index"].tolist(), *second["index"].tolist()] == one["index"].tolist()
        assert (first["image"] == one["image"][:4]).all()


def test_in_joint_training_the_images_with_labels_are_balanced(make: Make) -> None:
    data = ready(make(balance=1.0, label_share=0.5, unlabelled_share=0.5, num_epochs=1))
    assert isinstance(data.train_dataloader().sampler, MixtureSampler)
    labels = [int(label) for batch in batches(data, 6) for label in batch["label"]]
    assert labels.count(-1) == 24
    assert abs(labels.count(0) - labels.count(1)) <= 3
    assert data.class_shares == [0.5, 0.5]


def test_images_without_labels_cannot_be_balanced(make: Make, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "flat").mkdir(exist_ok=True)
        Image.fromarray(noise(number)).save(tmp_path / "flat" / f"{number}.png")
    rows = [f"{number}.png,{'' if number == 3 else 'ab'[number % 2]},train" for number in range(12)]
    (tmp_path / "flat" / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    settings: dict[str, Any] = {
        "image_size": 32,
        "num_workers": 0,
        "index_dir": str(tmp_path / "index"),
        "balance": 0.5,
    }
    flat = ImageFolder(str(tmp_path / "flat"), **settings)
    listed = Manifest(str(tmp_path / "flat" / "list.csv"), **settings)
    for data in (flat, listed):
        with pytest.raises(UserError, match=r"balance=0.5 draws images by their class.*have no label"):
            ready(data)


@pytest.mark.parametrize("balance", [-0.1, 1.5])
def test_balance_lies_between_images_as_they_are_and_equal_classes(balance: float, make: Make) -> None:
    with pytest.raises(UserError, match=f"balance={balance:g} must be"):
        make(balance=balance)
