"""How long training is: by the budget or by the trainer's own settings, in steps and in trainer epochs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import NoReturn

from lightning.pytorch import Trainer

from lit_splitmask.errors import UserError
from lit_splitmask.loading.budget import Budget, Schedule, default_epochs, steps_per_epoch, whole_epochs


@dataclass(frozen=True)
class Length:
    """The length of a training.

    Args:
        schedule: The budget in images, passes and steps.
        steps_per_epoch: Optimizer steps per trainer epoch.
        installed: The ``max_steps`` that were written into the trainer; -1 if none were.
    """

    schedule: Schedule
    steps_per_epoch: int
    installed: int = -1

    @property
    def num_epochs(self) -> int:
        """Number of trainer epochs, the last of which may be incomplete."""
        return ceil(self.schedule.steps / self.steps_per_epoch)


def length_of(
    trainer: Trainer | None,
    budget: Budget | None,
    schedule_of: Callable[[Budget | None], Schedule],
    num_epochs: int | None,
    before: Length | None,
) -> Length:
    """The length of a training; its steps are written into the trainer.

    The number of epochs is not: Lightning counts an epoch that was resumed in its middle twice, and would end too early.

    Args:
        trainer: The trainer; None for the length by the budget.
        budget: The budget that the user gave, if any.
        schedule_of: Resolves a budget.
        num_epochs: Number of trainer epochs that the budget is cut into; None for the default.
        before: What an earlier call returned, if any.

    Raises:
        UserError: The trainer's ``max_steps`` or ``max_epochs`` contradicts the budget.
    """
    schedule = schedule_of(budget)
    epochs = num_epochs or default_epochs(schedule.steps)
    if budget is None or budget.steps is None:
        schedule = whole_epochs(schedule, epochs)  # Lightning does not validate after a partial epoch
    installed = -1 if before is None else before.installed
    length = Length(schedule, steps_per_epoch(schedule.steps, epochs), installed)
    if trainer is None:
        return length
    own = _own_max_steps(trainer, budget, length)
    if own is None:
        trainer.fit_loop.epoch_loop.max_steps = schedule.steps
        return replace(length, installed=schedule.steps)
    return Length(schedule_of(Budget(steps=own)), steps_per_epoch(own, num_epochs or default_epochs(own)))


def _own_max_steps(trainer: Trainer, budget: Budget | None, length: Length) -> int | None:
    """The trainer's own ``max_steps``, if it sets the length of training; None if the budget does."""
    max_steps, max_epochs = trainer.max_steps, trainer.max_epochs
    must_agree = budget is not None and not getattr(trainer, "fast_dev_run", False)
    steps, epochs = length.schedule.steps, length.num_epochs
    if max_steps not in (-1, length.installed):
        if max_steps != steps and must_agree:
            _refuse(budget, steps, f"trainer.max_steps={max_steps:,}")
        return max_steps
    if max_epochs is not None and -1 < max_epochs < epochs and must_agree:
        _refuse(budget, steps, f"trainer.max_epochs={max_epochs:,} (the budget has {epochs:,} epochs)")
    return None


def _refuse(budget: Budget | None, steps: int, setting: str) -> NoReturn:
    raise UserError(
        f"The budget {budget} means {steps:,} steps, but the trainer was given {setting}. Set the length only "
        "with data.budget (steps, passes, images or scale), and leave trainer.max_steps and trainer.max_epochs at -1."
    )
