"""How many evaluations a training affords, and on how many images."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from lit_splitmask.selection.measuring import FORWARD_SHARE, affordable_evaluations, forward_passes
from lit_splitmask.selection.signals import Signal
from lit_splitmask.selection.sizes import Sizes

USEFUL_EVALUATIONS = 5
"""Evaluations for which the images are thinned out if necessary: a choice among fewer says little."""

FEWEST_IMAGES = 200
"""Thinned-out images are at least this many, as signals on fewer are mostly noise."""


@dataclass(frozen=True)
class Schedule:
    """The evaluations of a training.

    Attributes:
        num_evaluations: How many there are at most; 0 if not even one is affordable.
        max_images: Number of training images, and of held-out images, to measure on at most; None without thinning.
        advice: Why there are so few and what to do, in sentences, if there are fewer than 2.
    """

    num_evaluations: int
    max_images: int | None = None
    advice: str = ""


def plan(
    signals: Sequence[Signal],
    sizes: Sizes,
    *,
    steps: int,
    images_per_step: int,
    most_cost: float,
    evaluations: int,
    thin: bool,
) -> Schedule:
    """Fits the evaluations into a share of the training time.

    Args:
        signals: Signals that each evaluation measures.
        sizes: What their cost depends on.
        steps: Optimizer steps of the whole training.
        images_per_step: Images per optimizer step.
        most_cost: Share of the training time that all evaluations may take.
        evaluations: Number of evaluations to make at most.
        thin: Whether to measure on fewer images where fewer than :data:`USEFUL_EVALUATIONS` fit otherwise.
    """

    def affordable(sizes: Sizes) -> float:
        return affordable_evaluations(signals, sizes, steps=steps, images_per_step=images_per_step, most_cost=most_cost)

    max_images = None
    useful = min(evaluations, USEFUL_EVALUATIONS)
    if thin and affordable(sizes) < useful:
        largest = max(sizes.num_train, sizes.num_held_out)
        counts = range(min(FEWEST_IMAGES, largest), largest + 1)
        num_fitting = bisect_right(counts, False, key=lambda count: affordable(sizes.at_most(count)) < useful)
        max_images = counts[max(0, num_fitting - 1)]
        sizes = sizes.at_most(max_images)
    number = int(min(evaluations, affordable(sizes)))
    if number >= min(2, evaluations):
        return Schedule(number, max_images)
    cost = forward_passes(signals, sizes) * FORWARD_SHARE / (steps * images_per_step)
    advice = (
        f"Training sees {steps * images_per_step:,} images ({steps:,} steps of {images_per_step:,}), and an evaluation on "
        f"{sizes.num_train:,} training and {sizes.num_held_out:,} held-out images would take about {cost:.2g} of its time, while "
        f"most_cost={most_cost:g} is allowed for all. Train longer or, in Python, lower most_images or "
        f"raise most_cost to {useful * cost * 1.01:.2g} for {useful} evaluations."
    )
    return Schedule(number, max_images, advice)
