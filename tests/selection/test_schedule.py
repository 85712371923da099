"""How many evaluations a training affords, and on how many images."""

from typing import Any

import pytest

from lit_splitmask.selection.measuring import affordable_evaluations
from lit_splitmask.selection.schedule import FEWEST_IMAGES, plan
from lit_splitmask.selection.signals import KNN, RankMe
from lit_splitmask.selection.sizes import Sizes

SIZES = Sizes(num_train=5000, num_held_out=1000, num_classes=2, width=0, macs=0)
USUAL: dict[str, Any] = {"images_per_step": 64, "most_cost": 0.05, "evaluations": 20, "thin": True}


def test_there_are_as_many_evaluations_as_asked_for_if_they_are_affordable() -> None:
    found = plan([RankMe(), KNN()], SIZES, steps=100_000, **USUAL)
    assert (found.num_evaluations, found.max_images, found.advice) == (20, None, "")


@pytest.mark.parametrize("steps", [400, 1580, 4000])
def test_images_are_thinned_out_until_five_evaluations_are_affordable(steps: int) -> None:
    signals = [RankMe(), KNN()]
    found = plan(signals, SIZES, steps=steps, **USUAL)
    amount = {"steps": steps, "images_per_step": 64, "most_cost": 0.05}
    assert found.max_images is not None
    assert found.num_evaluations == 5
    assert affordable_evaluations(signals, SIZES.at_most(found.max_images), **amount) >= 5
    assert affordable_evaluations(signals, SIZES.at_most(found.max_images + 1), **amount) < 5
    kept = plan(signals, SIZES, steps=steps, **(USUAL | {"thin": False}))
    assert (kept.num_evaluations, kept.max_images) == (int(0.1 * steps * 64 / 6000), None)


def test_images_are_not_thinned_out_below_what_a_signal_needs() -> None:
    found = plan([RankMe(), KNN()], SIZES, steps=100, **USUAL)
    assert found.max_images == FEWEST_IMAGES
    assert found.num_evaluations == 1  # 640 images may be measured, 400 at a time
    assert "Training sees 6,400 images (100 steps of 64)" in found.advice
    assert "200 training and 200 held-out images" in found.advice
    assert "raise most_cost to 0.16 for 5 evaluations" in found.advice


def test_one_evaluation_that_is_asked_for_is_not_too_few() -> None:
    found = plan([RankMe()], SIZES, steps=1000, **(USUAL | {"evaluations": 1}))
    assert (found.num_evaluations, found.advice) == (1, "")
