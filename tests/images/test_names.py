import pickle

import numpy as np
import pytest

from lit_splitmask.images.names import Names
from lit_splitmask.loading.samples import Samples

NAMES = sorted(["a/1.jpg", "", "b b.png", "漢字.jpg", "ü.jpg", "🦋/x.jpg", "not\udcff-utf8.jpg", "a/10.jpg"])


def test_names_are_a_sequence_of_strings() -> None:
    names = Names(NAMES)
    assert list(names) == NAMES
    assert len(names) == len(NAMES)
    assert names[-1] == NAMES[-1]
    assert list(names[1:5:2]) == NAMES[1:5:2]
    assert names == NAMES
    assert names != NAMES[:-1]
    assert "ü.jpg" in names
    with pytest.raises(IndexError):
        names[len(NAMES)]


def test_sorted_names_are_found_by_bisection() -> None:
    names = Names(NAMES)
    assert [names.index(name) for name in NAMES] == list(range(len(NAMES)))
    for missing in ("a/2.jpg", "~", "\U0010ffff"):
        with pytest.raises(ValueError, match="not among"):
            names.index(missing)


def test_no_names_are_a_sequence_too() -> None:
    assert list(Names([])) == []
    assert len(Samples([], [])) == 0


def test_a_name_costs_little_more_than_its_letters() -> None:
    files = [f"train_val2018/Plantae/{number:05d}/{number:032d}.jpg" for number in range(10_000)]
    size = len(pickle.dumps(Samples(files, np.zeros(len(files)))))
    letters = sum(map(len, files))
    assert letters < size < letters + 20 * len(files)


def test_a_subset_keeps_files_and_labels_together() -> None:
    samples = Samples(["a", "b", "c"], [0, 1, 2]).subset([2, 0])
    assert list(samples.files) == ["c", "a"]
    assert samples.labels.tolist() == [2, 0]
    with pytest.raises(ValueError, match="3 files"):
        Samples(["a", "b", "c"], [0])
