"""How long to train: conversions between images seen, passes and optimizer steps. Pure functions.

The paper (Section 5.1, Table 3) counts images seen: 300 passes over ImageNet by default, for a dataset of any size.
"""

from dataclasses import dataclass, replace
from math import ceil

from lit_splitmask.errors import UserError

IMAGENET_IMAGES = 1_281_167
IMAGENET_PASSES = 300
MAX_PASSES = 5_000.0
MAX_EPOCHS = 100
MIN_STEPS = 10
"""Least number of optimizer steps in a trainer epoch, by default: each ends with a validation and a checkpoint."""


@dataclass(frozen=True)
class Budget:
    """How long to train: at most one of four numbers; the paper's default if none is given.

    Args:
        images: Total number of images seen.
        passes: Number of passes over the training images.
        steps: Number of optimizer steps.
        scale: Multiple of the default, such as 0.1.

    Raises:
        UserError: More than one number is given, or one is not positive.

    Example:
        >>> from lit_splitmask.datamodules import Budget
        >>> from lit_splitmask.loading.budget import resolve
        >>> resolve(Budget(passes=100), num_images=2_000, batch_size=64).describe()
        '2,000 images x 100 passes = 200,000 images seen = 3,125 steps of 64'
        >>> resolve(None, num_images=2_000, batch_size=2048).passes  # the paper's default is capped at 5,000 passes
        5000.0
    """

    images: int | None = None
    passes: float | None = None
    steps: int | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        listed = " and ".join(f"{name}={value:,}" for name, value in given.items())
        if len(given) > 1:
            raise UserError(f"The training budget was given by {listed}. Each sets the length: pass only one of them.")
        if any(value <= 0 for value in given.values()):
            raise UserError(f"The training budget is {listed}, but it must be more than 0. Pass a positive number.")

    def __str__(self) -> str:
        return next((f"{name}={value:,}" for name, value in vars(self).items() if value is not None), "the default")


@dataclass(frozen=True)
class Schedule:
    """A budget resolved for one dataset and batch size.

    Args:
        images: Total number of images seen.
        passes: Number of passes over the training images.
        steps: Number of optimizer steps.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        num_images: Number of training images.
        capped: Whether the cap on the number of passes shortened the default budget.
    """

    images: int
    passes: float
    steps: int
    batch_size: int
    num_images: int
    capped: bool = False

    def describe(self) -> str:
        """One line, such as ``1,000 images x 5,000 passes = 5,000,000 images seen = 2,442 steps of 2,048``."""
        passes = f"{self.passes:,.2f}".rstrip("0").rstrip(".")
        return (
            f"{self.num_images:,} images x {passes} passes = {self.images:,} images seen = "
            f"{self.steps:,} steps of {self.batch_size:,}"
        )


def resolve(
    budget: Budget | None,
    num_images: int,
    batch_size: int,
    *,
    table_passes: float | None = None,
    max_passes: float = MAX_PASSES,
) -> Schedule:
    """Resolves a budget for a dataset and batch size.

    The default is ``table_passes`` if given, otherwise the images seen in 300 passes over ImageNet, but at most ``max_passes``
    passes over these images.

    Args:
        budget: The requested budget, which is never capped; ``scale`` multiplies the default, and None or an empty budget means
            the default.
        num_images: Number of training images.
        batch_size: Images per optimizer step.
        table_passes: Passes that Table 3 gives for this dataset.
        max_passes: Cap on the passes of the default.

    Raises:
        UserError: There are no training images, or the batch size is not positive.
    """
    if num_images < 1:
        raise UserError(
            f"There are {num_images} training images, but training needs at least one. Check the folder of training images; "
            "images that are also in val or test are removed from it."
        )
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}, but an optimizer step needs at least one image.")
    budget = budget or Budget()
    capped = False
    if budget.steps is not None:
        images = budget.steps * batch_size
    elif budget.images is not None:
        images = budget.images
    elif budget.passes is not None:
        images = max(1, round(budget.passes * num_images))
    else:
        default = IMAGENET_IMAGES * IMAGENET_PASSES if table_passes is None else round(table_passes * num_images)
        images = default if table_passes is not None else round(min(default, max_passes * num_images))
        capped = images < default
        images = max(1, round(images * (budget.scale or 1)))
    steps = max(1, ceil(images / batch_size))
    return Schedule(images, images / num_images, steps, batch_size, num_images, capped)


def default_epochs(steps: int) -> int:
    """Number of trainer epochs that ``steps`` are cut into by default: 100, or fewer if they would have less than ten steps."""
    return max(1, min(MAX_EPOCHS, steps // MIN_STEPS))


def steps_per_epoch(steps: int, num_epochs: int) -> int:
    """Optimizer steps per trainer epoch when ``steps`` are cut into ``num_epochs`` epochs."""
    return max(1, ceil(steps / num_epochs))


def whole_epochs(schedule: Schedule, num_epochs: int) -> Schedule:
    """Rounds the steps of a schedule up to whole trainer epochs, which adds less than one epoch."""
    length = steps_per_epoch(schedule.steps, num_epochs)
    steps = ceil(schedule.steps / length) * length
    if steps == schedule.steps:
        return schedule
    images = steps * schedule.batch_size
    return replace(schedule, steps=steps, images=images, passes=images / schedule.num_images)
