"""Times a few steps before a run starts and estimates how long the run will take on this machine."""

import itertools
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lit_splitmask.contract import training_data
from lit_splitmask.distributed import alone
from lit_splitmask.errors import UserError
from lit_splitmask.seeding import seeded_globals
from lit_splitmask.units import duration

DAY = 86_400.0

MIN_STEPS = 1000
"""Proposed commands lower the batch size, to no less than 64, to make at least this many steps."""

FEW_IMAGES = 8
MAX_SECONDS = 30.0
"""If timing the steps would take longer on a CPU, only :data:`FEW_IMAGES` are timed, and scaled up to a step."""


def too_long_message(seconds: float, *, steps: int, images: int, command: str, smaller: str | None = None) -> str:
    """What to run instead of a pre-training that would take more than a day on this machine.

    Args:
        seconds: Estimated time of the whole run.
        steps: Optimizer steps of the run.
        images: Images that the run sees.
        command: The user's command line.
        smaller: The same with a smaller network; None if there is none.
    """
    per_image = seconds / images
    lines = []
    for name, limit in (("an hour", 3600.0), ("a night (10 hours)", 36_000.0), ("a day", DAY)):
        fitting = max(1, int(limit / per_image))
        batch_size = max(64, 2 ** int(math.log2(max(1, fitting / MIN_STEPS))))
        lower = f" --data.batch_size {batch_size}" if batch_size < images // steps else ""
        lines.append(f"In {name}:\n  {command} --data.budget.images {fitting}{lower}")
    if smaller is not None:
        lines.append(f"A smaller network, for machines without a GPU:\n  {smaller}")
    lines.append(f"The full schedule anyway:\n  {command} --data.budget.images {images}")
    return (
        f"The full schedule of {steps:,} steps ({images:,} images seen) would take about {duration(seconds)} on this machine, "
        "and no budget was given, so training was not started. Smaller images (--data.image_size) or a GPU shorten it. What can "
        "be run:\n" + "\n".join(lines)
    )


class EstimateTime(Callback):
    """Times forward and backward passes of a few steps, leaves everything unchanged, and prints the estimated time of the run.

    It works with this project's modules and datamodules.

    Args:
        warmup: Number of steps that are not timed, since the first ones are slower.
        steps: Number of steps that are timed.
        stop_above: Raise a :class:`UserError` when training starts if the estimate exceeds this many seconds; 0 never raises.
        command: The user's command line, for that message.
        smaller: The same with a smaller network, if there is one.

    Example:
        >>> estimate = EstimateTime(steps=10, stop_above=3600.0)
        >>> estimate.seconds is None  # until training starts
        True
    """

    def __init__(
        self,
        *,
        warmup: int = 3,
        steps: int = 6,
        stop_above: float = 0.0,
        command: str = "lit-splitmask pretrain",
        smaller: str | None = None,
    ) -> None:
        self.warmup, self.steps, self.stop_above = warmup, steps, stop_above
        self.command, self.smaller = command, smaller
        self.seconds: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Estimates the time and prints it.

        Raises:
            UserError: The estimate exceeds ``stop_above``, or the datamodule is not one of this project.
        """
        buffers = {name: value.clone() for name, value in pl_module.named_buffers()}
        with alone():  # no process waits for another
            step_seconds = self._time_steps(trainer, pl_module)
        with torch.no_grad():
            for name, value in pl_module.named_buffers():
                value.copy_(buffers[name])
        # All processes make the same decision.
        step_seconds, stop_above = trainer.strategy.broadcast((step_seconds, self.stop_above))
        steps = int(trainer.estimated_stepping_batches) - trainer.global_step
        self.seconds = steps * step_seconds
        if trainer.is_global_zero:
            pl_module.print(
                f"A step takes about {step_seconds:.2f} s on this machine: {steps:,} steps will take about "
                f"{duration(self.seconds)}."
            )
        if stop_above and self.seconds > stop_above:
            images = steps * (training_data(trainer.datamodule).images_per_step or 1)  # type: ignore[attr-defined]
            raise UserError(
                too_long_message(self.seconds, steps=steps, images=images, command=self.command, smaller=self.smaller)
            )

    def _time_steps(self, trainer: Trainer, module: LightningModule) -> float:
        """Median seconds of an optimizer step on this process."""
        data = training_data(trainer.datamodule)  # type: ignore[attr-defined]
        if data.fitting_dataloader is None or data.images_per_step is None:
            raise UserError(
                "EstimateTime works only with the datamodules of this project: leave it out for other datamodules."
            )
        loader: Any = data.fitting_dataloader(None)
        images_per_step = data.images_per_step / trainer.world_size
        with seeded_globals(0):
            batches = itertools.chain.from_iterable(itertools.repeat(loader))
            if trainer.strategy.root_device.type == "cpu":
                few = min(FEW_IMAGES, loader.batch_size)
                seconds_of_few = [self._step(trainer, module, batches, few) for _ in range(2)][1]
                scaled_up = seconds_of_few * images_per_step / few
                if scaled_up * (self.warmup + self.steps) > MAX_SECONDS:
                    return scaled_up
            times = [self._step(trainer, module, batches) for _ in range(self.warmup + self.steps)][self.warmup :]
        return statistics.median(times) * images_per_step / loader.batch_size

    @staticmethod
    def _step(
        trainer: Trainer, module: LightningModule, batches: Iterator[Any], num_images: int | None = None
    ) -> float:
        """Seconds of one forward and backward pass over the first ``num_images`` of a batch, loading included."""
        start = time.perf_counter()
        batch = {key: value[:num_images] for key, value in next(batches).items()}
        batch = trainer.strategy.batch_to_device(batch)
        with trainer.precision_plugin.train_step_context(), _without_logging(module):
            loss: Any = module.training_step(batch, 0)
        loss.backward()
        if loss.is_cuda:
            torch.cuda.synchronize()
        module.zero_grad(set_to_none=True)
        return time.perf_counter() - start


@contextmanager
def _without_logging(module: LightningModule) -> Iterator[None]:
    """Switches off a module's logging, and the check that must stop all processes in the same step."""
    module.log = module.log_dict = module.check_finite = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del module.log, module.log_dict, module.check_finite
