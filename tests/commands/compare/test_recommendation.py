"""Which way of training a comparison recommends, and what it says of unequal times."""

from dataclasses import replace

import numpy as np
import pytest

from lit_splitmask.commands.compare.recommendation import recommend, unequal_times
from lit_splitmask.comparison import Arm, difference_of


def arm(name: str, *accuracies: float, minutes: float = 10.0) -> Arm:
    seeds = range(len(accuracies))
    return Arm(
        name, f"the {name}", dict(zip(seeds, accuracies, strict=True)), dict.fromkeys(seeds, 60 * minutes), "lr 1"
    )


SCRATCH = arm("scratch", 0.3, 0.3, 0.3, minutes=2.0)
LONG = arm("scratch_long", 0.50, 0.51, 0.52)


@pytest.mark.parametrize(
    ("own", "joint", "expected", "settled"),
    [
        ((0.60, 0.61, 0.62), (0.50, 0.52, 0.51), "pretrained", True),
        ((0.60, 0.61, 0.62), (0.70, 0.71, 0.72), "joint", True),
        ((0.50, 0.70, 0.52), (0.40, 0.60, 0.52), "scratch_long", False),
        ((0.40, 0.41, 0.42), (0.30, 0.31, 0.32), "scratch_long", True),
        ((0.40, 0.41, 0.42), (0.50, 0.52, 0.51), "scratch_long", False),
    ],
)
def test_the_best_way_is_recommended_if_it_is_shown_to_be_better_and_scratch_otherwise(
    own: tuple[float, ...], joint: tuple[float, ...], expected: str, settled: bool
) -> None:
    found = recommend([SCRATCH, LONG, arm("pretrained", *own), arm("joint", *joint)])
    assert found is not None
    assert (found.arm.name, found.settled) == (expected, settled)
    assert ("no other is shown to be better" in found.sentence) == (expected == "scratch_long")


def test_the_level_is_corrected_for_the_number_of_ways_and_of_looks() -> None:
    generator = np.random.default_rng(0)
    own = arm("pretrained", *(0.51 + 0.03 + 0.01 * generator.standard_normal(3)))
    assert difference_of(LONG, own).low > 0
    assert difference_of(LONG, own, 1 - 0.05 / 8).low < 0
    one, eight = (
        recommend([SCRATCH, LONG, own]),
        recommend([SCRATCH, LONG, own, arm("joint", 0.5, 0.5, 0.5)], num_looks=4),
    )
    assert one is not None
    assert one.arm.name == "pretrained"
    assert "95 % interval" in one.sentence
    assert eight is not None
    assert eight.arm.name == "scratch_long"
    assert "99.4 % interval, for 2 ways and up to 4 looks" in eight.sentence


def test_an_arm_that_takes_longer_is_not_recommended() -> None:
    slow = arm("mae", 0.9, 0.9, 0.9, minutes=12.0)
    arms = [SCRATCH, LONG, arm("pretrained", 0.50, 0.52, 0.51)]
    found = [recommend([*arms, one]) for one in (slow, replace(slow, seconds=arms[1].seconds))]
    assert [one.arm.name for one in found if one is not None] == ["scratch_long", "mae"]


def test_nothing_is_recommended_from_one_seed_or_without_scratch_for_equal_total_time() -> None:
    assert recommend([SCRATCH, arm("pretrained", 0.9, 0.9, 0.9)]) is None
    assert recommend([arm("scratch", 0.3), arm("scratch_long", 0.5), arm("pretrained", 0.9)]) is None


def test_times_that_end_more_than_a_tenth_apart_are_reported() -> None:
    own, joint = arm("pretrained", 0.5, minutes=10.9), arm("joint", 0.5, minutes=9.1)
    assert unequal_times([SCRATCH, LONG, own, joint]) == ""
    text = unequal_times([SCRATCH, LONG, own, replace(joint, seconds={0: 60 * 8.9})])
    assert "more than 10% apart" in text
    assert "the scratch_long: 10 min; the joint: 8.9 min" in text
    assert unequal_times([SCRATCH, own]) == ""
