"""Whether the budget or the trainer sets the length of training."""

from functools import partial
from math import ceil
from typing import Any

import pytest
from folder_data import MakeData, ready, stand_in

from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.datamodules.trainer_length import length_of
from lit_splitmask.errors import UserError
from lit_splitmask.loading.budget import resolve


def set_up(data: ImageFolder, **trainer: Any) -> ImageFolder:
    data.trainer = stand_in(**trainer)  # type: ignore[assignment]
    return ready(data)


def test_the_budget_is_written_into_the_trainer_and_may_be_written_again(make_data: MakeData) -> None:
    data = set_up(make_data(budget=Budget(steps=12)))
    loop = data.trainer.fit_loop.epoch_loop  # type: ignore[union-attr]
    assert loop.max_steps == data.schedule.steps == 12
    data.trainer.max_steps = 12  # type: ignore[union-attr, misc, assignment]
    data.setup("fit")
    assert loop.max_steps == data.schedule.steps == 12


def test_a_trainers_own_steps_count_without_a_budget_also_the_second_time(make_data: MakeData) -> None:
    data = set_up(make_data(), max_steps=7)
    assert data.schedule.steps == 7
    data.setup("fit")
    assert data.schedule.steps == 7


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (19, 1), (25, 2), (1000, 100), (5000, 100)])
def test_by_default_an_epoch_has_ten_steps_or_more_if_there_are_so_many(
    make_data: MakeData, steps: int, epochs: int
) -> None:
    data = set_up(make_data(budget=Budget(steps=steps)))
    assert ceil(steps / data.steps_per_epoch) == epochs
    assert data.steps_per_epoch >= min(steps, 10)


def test_whole_epochs_stay_whole_whatever_the_number_of_steps() -> None:
    for steps in [*range(1, 120), *range(985, 1015)]:
        trainer: Any = stand_in()
        length = length_of(trainer, Budget(images=8 * steps), partial(resolve, num_images=21, batch_size=8), None, None)
        assert length.schedule.steps == length.num_epochs * length.steps_per_epoch
        assert 0 <= length.schedule.steps - steps < length.steps_per_epoch


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"max_steps": 7}, r"means 12 steps, but the trainer was given trainer\.max_steps=7"),
        ({"max_epochs": 2}, r"trainer\.max_epochs=2 \(the budget has 3 epochs\)"),
    ],
)
def test_a_trainer_that_contradicts_the_budget_is_refused(
    make_data: MakeData, trainer: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        set_up(make_data(budget=Budget(steps=12), num_epochs=3), **trainer)
    assert set_up(make_data(budget=Budget(steps=12), num_epochs=3), **trainer, fast_dev_run=True)


def test_a_trainer_that_agrees_with_the_budget_is_accepted(make_data: MakeData) -> None:
    data = set_up(make_data(budget=Budget(steps=12), num_epochs=3), max_steps=12, max_epochs=3)
    assert data.schedule.steps == 12
