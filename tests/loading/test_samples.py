import pickle

import numpy as np
import pytest

from lit_splitmask.loading.samples import Samples


def test_samples_may_be_empty() -> None:
    assert len(Samples([], [])) == 0


def test_a_sample_takes_little_more_memory_than_its_name() -> None:
    files = [f"train_val2018/Plantae/{number:05d}/{number:032d}.jpg" for number in range(10_000)]
    size = len(pickle.dumps(Samples(files, np.zeros(len(files)))))
    letters = sum(map(len, files))
    assert letters < size < letters + 20 * len(files)


def test_a_subset_has_the_labels_of_its_files() -> None:
    samples = Samples(["a", "b", "c"], [0, 1, 2]).subset([2, 0])
    assert list(samples.files) == ["c", "a"]
    assert samples.labels.tolist() == [2, 0]


def test_the_labelled_samples_are_those_with_a_label() -> None:
    samples = Samples(["a", "b", "c"], [1, -1, 0])
    assert not samples.all_labelled
    assert list(samples.labelled().files) == ["a", "c"]
    assert samples.labelled().labels.tolist() == [1, 0]
    assert samples.labelled().labelled().all_labelled
    assert len(Samples(["a"], [-1]).labelled()) == 0


def test_a_different_number_of_labels_than_files_is_refused() -> None:
    with pytest.raises(ValueError, match="3 files"):
        Samples(["a", "b", "c"], [0])
