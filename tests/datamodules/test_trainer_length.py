"""Whether the budget or the trainer sets the length of training."""

from typing import Any

import pytest
from folder_data import MakeData, ready, stand_in

from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.errors import UserError


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


def test_a_trainers_own_steps_count_without_a_budget(make_data: MakeData) -> None:
    assert set_up(make_data(), max_steps=7).schedule.steps == 7


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
