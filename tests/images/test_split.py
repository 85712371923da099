from collections import Counter

import pytest

from lit_splitmask.errors import UserError
from lit_splitmask.images.split import check_shares, cut, drop_shared, find_conflicts, nested_share

SHARES = {"test": 0.2, "val": 0.1}


def make(per_class: list[int]) -> tuple[list[str], dict[str, str], dict[str, int]]:
    labels = {f"{label}/{n:03d}": label for label, count in enumerate(per_class) for n in range(count)}
    return sorted(labels), {file: file for file in labels}, labels


@pytest.mark.parametrize("per_class", [[10, 20, 30], [3, 4, 5], [1, 2, 3], [100]])
def test_the_splits_are_a_partition(per_class: list[int]) -> None:
    files, hashes, labels = make(per_class)
    splits = cut(files, hashes, labels, shares=SHARES, seed=0)
    assert sorted(file for members in splits.values() for file in members) == files
    assert all(members == sorted(members) for members in splits.values())


def test_every_class_has_the_requested_shares() -> None:
    files, hashes, labels = make([10, 50, 100])
    splits = cut(files, hashes, labels, shares=SHARES, seed=0)
    assert Counter(labels[file] for file in splits["test"]) == {0: 2, 1: 10, 2: 20}
    assert Counter(labels[file] for file in splits["val"]) == {0: 1, 1: 5, 2: 10}


@pytest.mark.parametrize("shares", [SHARES, {"test": 0.6, "val": 0.39}, {"val": 0.9}])
def test_three_distinct_images_reach_every_split(shares: dict[str, float]) -> None:
    files, hashes, labels = make([3, 3, 4])
    for members in cut(files, hashes, labels, shares=shares, seed=1).values():
        assert {labels[file] for file in members} == {0, 1, 2}


def test_a_class_of_two_stays_in_train() -> None:
    files, hashes, labels = make([2, 10])
    assert {"0/000", "0/001"} <= set(cut(files, hashes, labels, shares=SHARES, seed=0)["train"])


def test_the_seed_determines_the_splits() -> None:
    files, hashes, labels = make([40, 40])
    assert cut(files, hashes, labels, shares=SHARES, seed=0) == cut(files, hashes, labels, shares=SHARES, seed=0)
    assert cut(files, hashes, labels, shares=SHARES, seed=0) != cut(files, hashes, labels, shares=SHARES, seed=1)


@pytest.mark.parametrize("seed", range(5))
def test_identical_images_stay_together_even_with_different_labels(seed: int) -> None:
    files, hashes, labels = make([20, 20])
    hashes |= {file: f"same {number // 4}" for number, file in enumerate(files) if number < 32}
    for members in cut(files, hashes, labels, shares=SHARES, seed=seed).values():
        inside = {hashes[file] for file in members}
        assert not inside & {hashes[file] for file in set(files) - set(members)}


def test_images_that_splits_share_are_removed_from_the_one_trained_on() -> None:
    hashes = {"train/1": "a", "train/2": "b", "train/3": "c", "val/1": "a", "val/2": "d", "test/1": "b", "test/2": "d"}
    given = {split: [file for file in hashes if file.startswith(split)] for split in ("train", "val", "test")}
    splits, dropped = drop_shared(given, hashes)
    assert splits == {"train": ["train/3"], "val": ["val/1"], "test": ["test/1", "test/2"]}
    assert [(entry.file, entry.same_as) for entry in dropped] == [
        ("val/2", "test/2"),
        ("train/1", "val/1"),
        ("train/2", "test/1"),
    ]


def test_identical_images_within_a_split_stay() -> None:
    assert drop_shared({"train": ["1", "2"]}, {"1": "a", "2": "a"}) == ({"train": ["1", "2"]}, [])


def test_identical_images_under_different_labels_are_found() -> None:
    hashes, labels = {"1": "a", "2": "a", "3": "b", "4": "b"}, {"1": 0, "2": 1, "3": 1, "4": 1}
    assert find_conflicts(["1", "2", "3", "4"], hashes, labels) == [["1", "2"]]


def test_an_image_without_a_label_is_in_no_conflict_and_stays_in_train_if_others_have_one() -> None:
    files = [f"{number:02}" for number in range(40)]
    hashes = {file: file for file in files} | {"20": "00"}
    labels = {file: -1 if number >= 20 else number % 2 for number, file in enumerate(files)}
    assert find_conflicts(files, hashes, labels) == []
    splits = cut(files, hashes, labels, shares=SHARES, seed=0)
    held_out = {*splits["val"], *splits["test"]}
    assert held_out
    assert {file for file in held_out if labels[file] < 0} <= {"20"}  # the copy of a labelled image stays with it
    assert ("00" in held_out) == ("20" in held_out)
    labelled = cut(files[:20], hashes, labels, shares=SHARES, seed=0)
    assert held_out - {"20"} == {*labelled["val"], *labelled["test"]}
    alone = cut(files, hashes, dict.fromkeys(files, -1), shares=SHARES, seed=0)
    assert alone["val"]
    assert alone["test"]


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.2), (1.0, 0.0)])
def test_shares_that_leave_nothing_are_refused(val: float, test: float) -> None:
    with pytest.raises(UserError, match=f"val_share={val} and test_share={test}"):
        check_shares(val, test)


def test_shares_of_labels_are_nested_and_keep_every_class() -> None:
    labels = [0] * 50 + [1] * 20 + [2] * 3
    chosen = [set(nested_share(labels, share, seed=4)) for share in (0.01, 0.1, 0.5, 1.0)]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3] == set(range(73))
    assert all({labels[index] for index in indices} == {0, 1, 2} for indices in chosen)
    assert Counter(labels[index] for index in chosen[1]) == {0: 5, 1: 2, 2: 1}


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=f"label_share={share}"):
        nested_share([0, 1], share, seed=0)
