"""Times a few steps before a run starts and says how long it will take on this machine."""

import itertools
import math
import statistics
import time
from collections.abc import Iterator
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
"""The commands that are proposed lower the batch size, down to 64, to make at least so many steps."""

FEW_IMAGES = 8
MAX_SECONDS = 30.0
"""On a CPU, steps that together would take longer are not timed: a few images are, and scaled up."""


def too_long_message(seconds: float, *, steps: int, images: int, command: str) -> str:
    """What to run instead of a pre-training that takes more than a day here.

    Args:
        seconds: estimated time of the whole run.
        steps, images: its budget.
        command: the command line that the user gave.
    """
    per_image = seconds / images
    lines = []
    for name, limit in (("an hour", 3600.0), ("a night (10 hours)", 36_000.0), ("a day", DAY)):
        fitting = int(limit / per_image)
        batch_size = max(64, 2 ** int(math.log2(max(1, fitting / MIN_STEPS))))
        smaller = f" --data.batch_size {batch_size}" if batch_size < images // steps else ""
        lines.append(f"  {command} --data.budget.images {fitting}{smaller}   # {name}")
    return (
        f"The full schedule of {steps:,} steps ({images:,} images seen) would take about {duration(seconds)} on this machine, "
        "and no budget was given, so nothing was started. Commands that fit:\n"
        + "\n".join(lines)
        + "\nA smaller network (--recipe splitmask_cpu), smaller images (--data.image_size) or a GPU shorten it "
        f"too. To run the full schedule all the same:\n  {command} --data.budget.images {images}"
    )


class EstimateTime(Callback):
    """Runs a few steps forth and back, without changing anything, and prints the time that the run will take.

    For this project's modules and datamodules.

    Args:
        warmup: steps that are not timed, since the first ones are slower.
        steps: steps that are timed.
        stop_above: raise a :class:`UserError` if the estimate is above so many seconds; 0: never.
        command: the command line, for the message then.
    """

    def __init__(
        self, *, warmup: int = 3, steps: int = 6, stop_above: float = 0.0, command: str = "lit-splitmask pretrain"
    ) -> None:
        self.warmup, self.steps, self.stop_above, self.command = warmup, steps, stop_above, command
        self.seconds: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        buffers = {name: value.clone() for name, value in pl_module.named_buffers()}
        with alone():  # so that no process waits for another
            step_seconds = self._time_steps(trainer, pl_module)
        with torch.no_grad():
            for name, value in pl_module.named_buffers():
                value.copy_(buffers[name])
        step_seconds = trainer.strategy.broadcast(step_seconds)  # all decide alike
        steps = int(trainer.estimated_stepping_batches) - trainer.global_step
        self.seconds = steps * step_seconds
        if trainer.is_global_zero:
            pl_module.print(
                f"A step takes about {step_seconds:.2f} s here: the {steps:,} steps will take about {duration(self.seconds)}."
            )
        if self.stop_above and self.seconds > self.stop_above:
            images = steps * (training_data(trainer.datamodule).images_per_step or 1)  # type: ignore[attr-defined]
            raise UserError(too_long_message(self.seconds, steps=steps, images=images, command=self.command))

    def _time_steps(self, trainer: Trainer, module: LightningModule) -> float:
        """Median seconds of an optimizer step on this process."""
        data = training_data(trainer.datamodule)  # type: ignore[attr-defined]
        if data.fitting_dataloader is None or data.images_per_step is None:
            raise UserError("EstimateTime times steps of this project's datamodules: leave it out with others.")
        loader: Any = data.fitting_dataloader(None)
        images_per_step = data.images_per_step / trainer.world_size
        with seeded_globals(0):
            batches = itertools.chain.from_iterable(itertools.repeat(loader))
            if trainer.strategy.root_device.type == "cpu":
                few = min(FEW_IMAGES, loader.batch_size)
                part = [self._step(trainer, module, batches, few) for _ in range(2)][1]
                full = part * images_per_step / few
                if full * (self.warmup + self.steps) > MAX_SECONDS:
                    return full
            times = [self._step(trainer, module, batches) for _ in range(self.warmup + self.steps)][self.warmup :]
        return statistics.median(times) * images_per_step / loader.batch_size

    @staticmethod
    def _step(
        trainer: Trainer, module: LightningModule, batches: Iterator[Any], num_images: int | None = None
    ) -> float:
        """Seconds of one forward and backward pass, loading included, over the first ``num_images`` of a batch."""
        start = time.perf_counter()
        batch = {key: value[:num_images] for key, value in next(batches).items()}
        batch = trainer.strategy.batch_to_device(batch)
        with trainer.precision_plugin.train_step_context(), _Silent(module):
            loss: Any = module.training_step(batch, 0)
        loss.backward()
        if loss.is_cuda:
            torch.cuda.synchronize()
        module.zero_grad(set_to_none=True)
        return time.perf_counter() - start


class _Silent:
    """Switches a module's logging off for a while."""

    def __init__(self, module: LightningModule) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.module.log = self.module.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]

    def __exit__(self, *_: object) -> None:
        del self.module.log, self.module.log_dict
