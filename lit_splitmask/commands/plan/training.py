"""Plans a training without running it: its budget, and its cost on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from lit_splitmask.commands import recipe_choice
from lit_splitmask.commands.plan import cost as plan_cost
from lit_splitmask.commands.run_cli import RunCLI, trainer_defaults
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.errors import UserError
from lit_splitmask.images.cache import cache_of
from lit_splitmask.images.index import FolderIndex
from lit_splitmask.modules.base import TrainModule


@dataclass(frozen=True)
class TrainingPlan:
    """One training, and its cost on this machine.

    Attributes:
        recipe: Name or path of the recipe.
        reason: Why it was chosen.
        image_size: Side of the crops in pixels.
        num_images: Training images.
        passes: Passes over them.
        images_seen: Images seen in all steps.
        batch_size: Images in a step, on all devices.
        steps: Optimizer steps.
        warmup_steps: Steps of the warm-up.
        parameters: Number of weights; None if no steps are timed.
        device: Type of the device.
        num_devices: Number of devices.
        timed_images: Images in a timed step; time and memory of other numbers are scaled linearly. This and all below, except of
            the cache and the number of checkpoints, is None if no steps are timed.
        timed_steps: Number of timed steps.
        step_seconds: Time of a step.
        total_seconds: Time of all steps, without validation and the fitting of visual words.
        memory_bytes: Peak memory of one device, or of the training process on a CPU.
        device_memory_bytes: Memory of the device, or of the machine for a CPU.
        cache: Name of the pixel cache; None if images are decoded in every pass.
        cache_bytes: Size of the pixel cache.
        checkpoint_bytes: Size of one checkpoint.
        num_checkpoints: Largest number of checkpoints on disk.
        weights_bytes: Size of the exported weights.
    """

    recipe: str
    reason: str
    image_size: int
    num_images: int
    passes: float
    images_seen: int
    batch_size: int
    steps: int
    warmup_steps: int
    parameters: int | None
    device: str
    num_devices: int
    timed_images: int | None
    timed_steps: int | None
    step_seconds: float | None
    total_seconds: float | None
    memory_bytes: int | None
    device_memory_bytes: int | None
    cache: str | None
    cache_bytes: int
    checkpoint_bytes: int | None
    num_checkpoints: int
    weights_bytes: int | None


class Stage:
    """A training that is built but not run.

    Args:
        module: Class of the module.
        arguments: Options of the training, as for :class:`RunCLI`.
        recipe: Recipe of the training, as for :class:`RunCLI`.
        scratch: A temporary folder.

    Raises:
        UserError: The settings do not fit together, or the images cannot be used.
    """

    def __init__(self, module: type[TrainModule], arguments: list[str], recipe: dict[str, Any], scratch: Path) -> None:
        recipe = {**recipe, "trainer": {**trainer_defaults(), **recipe.get("trainer", {})}}
        self.module_class, self.arguments, self.recipe = module, arguments, recipe
        run = RunCLI(module, [*arguments, "--trainer.logger=false"], recipe)
        self.trainer, built, data = run.build(RunFolder(scratch), [])
        self.module = cast(TrainModule, built)
        if not isinstance(data, FileData):
            raise UserError(
                f"plan inspects image files, but the recipe reads {type(data).__name__}: give another --recipe."
            )
        self.data = data
        self.index: FolderIndex = data.load_or_make()

    def plan(self, choice: recipe_choice.Choice, num_checkpoints: int, *, timed: bool = True) -> TrainingPlan:
        """Computes the budget, and times a few steps.

        Args:
            choice: The recipe and why it was chosen.
            num_checkpoints: Largest number of checkpoints on disk.
            timed: Whether to time steps.

        Raises:
            UserError: The training cannot run, or memory runs out.
        """
        trainer, data, index = self.trainer, self.data, self.index
        data.trainer = trainer  # the budget depends on its devices and max_steps
        data.setup("fit")
        schedule = data.schedule
        store_size = data.store_size(index)
        cache = None if store_size is None else cache_of(index, store_size)
        per_device = data.batch_size // (trainer.world_size * trainer.accumulate_grad_batches)
        device = trainer.strategy.root_device.type
        cost = step_seconds = None
        if timed:
            few = plan_cost.images_to_time(device, data.image_size, per_device)
            job = plan_cost.Job(self.module_class, self.arguments, self.recipe, few, in_memory=cache is not None)
            cost = plan_cost.time_alone(job)
            step_seconds = cost.seconds_of(data.batch_size // trainer.world_size)
        return TrainingPlan(
            recipe=choice.name,
            reason=choice.reason,
            image_size=data.image_size,
            num_images=schedule.num_images,
            passes=schedule.passes,
            images_seen=schedule.images,
            batch_size=schedule.batch_size,
            steps=schedule.steps,
            warmup_steps=round(self.module.optim.warmup * schedule.steps),
            parameters=None if cost is None else cost.parameters,
            device=device if cost is None else cost.device,
            num_devices=trainer.world_size,
            timed_images=None if cost is None else cost.num_images,
            timed_steps=None if cost is None else cost.num_steps,
            step_seconds=step_seconds,
            total_seconds=None if step_seconds is None else step_seconds * schedule.steps,
            memory_bytes=None if cost is None else cost.memory_of(per_device),
            device_memory_bytes=None if cost is None else device_memory(cost.device),
            cache=None if cache is None else cache.path.name,
            cache_bytes=0 if cache is None else cache.num_bytes,
            checkpoint_bytes=None if cost is None else cost.checkpoint_bytes,
            num_checkpoints=num_checkpoints,
            weights_bytes=None if cost is None else cost.weights_bytes,
        )


def device_memory(device: str) -> int:
    """Memory of the first GPU, or of the machine, in bytes."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def disk_bytes(plans: list[TrainingPlan]) -> int | None:
    """Disk space of trainings: caches (a shared one counts once), checkpoints and weights; None if no steps are timed."""
    total = sum({plan.cache: plan.cache_bytes for plan in plans}.values())
    for plan in plans:
        if plan.checkpoint_bytes is None or plan.weights_bytes is None:
            return None
        total += plan.num_checkpoints * plan.checkpoint_bytes + plan.weights_bytes
    return total
