"""Whether the training budget or the trainer's own settings set the length of training."""

from math import ceil
from typing import NoReturn

from lightning.pytorch import Trainer

from lit_splitmask.errors import UserError
from lit_splitmask.loading.budget import Budget, Schedule, steps_per_epoch


def own_max_steps(
    trainer: Trainer, budget: Budget | None, schedule: Schedule, num_epochs: int, installed_steps: int | None
) -> int | None:
    """The trainer's own ``max_steps``, if it sets the length of training; None if the budget does.

    Args:
        trainer: The trainer.
        budget: The budget that the user gave, if any.
        schedule: The budget in steps.
        num_epochs: Number of trainer epochs that the budget is cut into.
        installed_steps: The ``max_steps`` that an earlier ``setup`` wrote into the trainer, if any.

    Raises:
        UserError: The trainer's ``max_steps`` or ``max_epochs`` contradicts the budget.
    """
    max_steps, max_epochs = trainer.max_steps, trainer.max_epochs
    must_agree = budget is not None and not getattr(trainer, "fast_dev_run", False)
    if max_steps not in (-1, installed_steps):
        if max_steps != schedule.steps and must_agree:
            _refuse(budget, schedule, f"trainer.max_steps={max_steps:,}")
        return max_steps
    epochs = ceil(schedule.steps / steps_per_epoch(schedule.steps, num_epochs))
    if max_epochs is not None and -1 < max_epochs < epochs and must_agree:
        _refuse(budget, schedule, f"trainer.max_epochs={max_epochs:,} (the budget has {epochs:,} epochs)")
    return None


def _refuse(budget: Budget | None, schedule: Schedule, setting: str) -> NoReturn:
    raise UserError(
        f"The budget {budget} means {schedule.steps:,} steps, but the trainer was given {setting}. Set the length by "
        "data.budget alone (steps, passes, images or scale), and leave trainer.max_steps and trainer.max_epochs at -1."
    )
