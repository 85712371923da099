"""How far chance goes: intervals, and the accuracy of guessing."""

import numpy as np
import pytest

from lit_splitmask.commands.chance import (
    chance_level,
    chance_of_labels,
    chance_of_maps,
    interval,
    interval_of_mean,
    interval_text,
)


@pytest.mark.parametrize(("share", "number"), [(0.3, 50), (0.95, 40), (0.02, 100)])
def test_intervals_hold_the_true_accuracy_as_often_as_they_say(share: float, number: int) -> None:
    hits = np.random.default_rng(0).binomial(number, share, 2000)
    ends = {count: interval(count / number, number) for count in set(hits.tolist())}
    held = np.mean([ends[count][0] <= share <= ends[count][1] for count in hits.tolist()])
    assert 0.92 <= held <= 0.99


def test_intervals_stay_between_0_and_100_and_never_vanish() -> None:
    assert interval_text(interval(1.0, 8)) == "67.6 to 100.0 %"
    assert interval_text(interval(0.0, 8)) == "0.0 to 32.4 %"
    low, high = interval_of_mean([1.0, 1.0, 0.9], [8, 3, 10])
    assert 0.6 < low < 0.95
    assert 2.9 / 3 < high <= 1


def test_the_interval_of_a_mean_of_classes_holds_the_true_mean() -> None:
    generator, shares, counts = np.random.default_rng(0), [0.9, 0.6, 0.2], [30, 12, 20]
    held = []
    for _ in range(500):
        found = [generator.binomial(count, share) / count for share, count in zip(shares, counts, strict=True)]
        low, high = interval_of_mean(found, counts)
        held.append(low <= sum(shares) / 3 <= high)
    assert 0.92 <= np.mean(held) <= 0.99


def test_guessing_where_images_have_several_labels_or_maps() -> None:
    assert "an mAP of 30.0 % by" in chance_of_labels({"cat": 5, "dog": 1, "owl": 0}, 10)
    text = chance_of_maps({"road": 60, "sky": 40, "cat": 0})
    assert "mIoU 30.0 % and pixel accuracy 60.0 % by always answering road" in text


def test_guessing_among_classes_of_unequal_size() -> None:
    text = chance_level({"cat": 10, "dog": 30, "owl": 10})
    assert text == "Chance: 33.3 % by guessing among 3 classes, 60.0 % by always answering dog, the most frequent."
