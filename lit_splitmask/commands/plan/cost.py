"""What a training costs on this machine: a few real steps, timed in a process of their own."""

import io
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from lit_splitmask.commands.run_cli import RunCLI, quiet
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.datamodules.crop_data import CropData
from lit_splitmask.errors import UserError
from lit_splitmask.loading.budget import Budget
from lit_splitmask.loading.source import Source
from lit_splitmask.modules import Pretrain
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.tokenizers import Codebook

WARMUP_STEPS, TIMED_STEPS = 2, 5
MOST_SECONDS = 40.0
"""After so long no further step is timed, if one was."""

MOST_IMAGES = {"cpu": 64, "cuda": 256}
MOST_CPU_PIXELS = 2**20
"""Of a timed step; on a CPU, larger images are timed in smaller batches."""

_ALONE = [
    "--trainer.devices=1",
    "--trainer.strategy=auto",
    "--trainer.accumulate_grad_batches=1",
    "--trainer.max_steps=-1",
    "--trainer.max_epochs=-1",
    "--trainer.limit_val_batches=0",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
]


@dataclass(frozen=True)
class Job:
    """A training of which a few steps are timed.

    Attributes:
        module: class of the module.
        arguments, recipe: what :class:`RunCLI` takes.
        num_images: images of a timed step.
        in_memory: whether the images come from the pixel cache in the real training.
    """

    module: type[TrainModule]
    arguments: list[str]
    recipe: dict[str, Any]
    num_images: int
    in_memory: bool


@dataclass(frozen=True)
class StepCost:
    """What the timed steps took.

    Attributes:
        device: where they ran.
        num_images: images of a step.
        num_steps: steps that were timed, after the warm-up.
        seconds: median of a step, loading and optimizer included.
        base_bytes: memory before the first step.
        state_bytes: gradients and AdamW's two moments.
        activation_bytes: what the steps took beside these; grows with the images of a step.
        parameters: number of weights.
        weights_bytes: of the exported backbone or classifier.
        checkpoint_bytes: of one checkpoint: weights, buffers and the two moments.
    """

    device: str
    num_images: int
    num_steps: int
    seconds: float
    base_bytes: int
    state_bytes: int
    activation_bytes: int
    parameters: int
    weights_bytes: int
    checkpoint_bytes: int

    def seconds_of(self, num_images: int) -> float:
        """Estimated time of a step with so many images."""
        return self.seconds * num_images / self.num_images

    def memory_of(self, num_images: int) -> int:
        """Estimated peak memory of a step with so many images on one device at once."""
        return self.base_bytes + self.state_bytes + round(self.activation_bytes * num_images / self.num_images)


def images_to_time(device: str, image_size: int, num_images: int) -> int:
    """How many of the ``num_images`` that a device sees at once are timed: all of them, if that takes seconds only."""
    most = MOST_IMAGES.get(device, MOST_IMAGES["cpu"])
    if device == "cpu":
        most = min(most, max(8, MOST_CPU_PIXELS // image_size**2))
    return min(num_images, most)


def time_alone(job: Job) -> StepCost:
    """Times a job in a fresh process, so that its memory is that of a training and nothing else.

    Raises:
        UserError: The training cannot run, or takes more memory than there is.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(time_steps, job).result()
        except BrokenProcessPool:
            raise UserError(
                f"The process that timed steps of {job.num_images} images was killed, most likely because the memory of this "
                "machine did not suffice. Close other programs, or give a recipe with a smaller network or smaller images "
                "(--recipe; see lit-splitmask recipes)."
            ) from None


def time_steps(job: Job) -> StepCost:
    """Times a job in this process; on a GPU whose memory does not suffice, with fewer images.

    Raises:
        UserError: The training cannot run, or not even with one image a step.
    """
    quiet()
    num_images = job.num_images
    while num_images:
        try:
            return _time_steps(job, num_images)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            num_images //= 2
    raise UserError(
        "The memory of the GPU does not suffice for one image a step: give a recipe with a smaller network."
    )


def _time_steps(job: Job, num_images: int) -> StepCost:
    timer = StepTimer()
    with tempfile.TemporaryDirectory() as directory, redirect_stdout(io.StringIO()):
        run = RunCLI(job.module, [*job.arguments, *_ALONE], job.recipe)
        trainer, module, data = run.build(RunFolder(Path(directory)), [timer])
        data.setup("validate")
        if isinstance(module, Pretrain):
            _fill_codebook(module)
        assert isinstance(data, CropData)
        trainer.fit(module, datamodule=FewImages(data, num_images, job.in_memory))
    assert isinstance(module, TrainModule)
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return StepCost(
        device=trainer.strategy.root_device.type,
        num_images=num_images,
        num_steps=len(timer.seconds),
        seconds=statistics.median(timer.seconds),
        base_bytes=timer.base_bytes,
        state_bytes=3 * trained,
        activation_bytes=max(0, timer.peak_bytes - timer.base_bytes - 3 * trained),
        parameters=sum(p.numel() for p in module.parameters()),
        weights_bytes=_num_bytes(module.vit),
        checkpoint_bytes=_num_bytes(module) + 2 * trained,
    )


def _num_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def _fill_codebook(module: Pretrain) -> None:
    """Takes random words, since fitting them would read all images, and any words take the same time."""
    tokenizer = module.objective.tokenizer_to_fit
    if isinstance(tokenizer, Codebook) and tokenizer.needs_fitting:
        tokenizer.set_codebook(torch.randn_like(tokenizer.codebook))


class FewImages(CropData):
    """A few training images of another datamodule, for a few steps.

    Args:
        data: the other, set up.
        num_images: images of a step, and at most so many different ones.
        in_memory: read them beforehand, as if the pixel cache had been built.
    """

    def __init__(self, data: CropData, num_images: int, in_memory: bool) -> None:
        super().__init__(
            image_size=data.image_size,
            batch_size=num_images,
            budget=Budget(steps=WARMUP_STEPS + TIMED_STEPS),
            num_epochs=1,
            augment=data.augment,
            seed=data.seed,
            num_workers=data.num_workers,
        )
        self.data, self.in_memory = data, in_memory

    def open_source(self) -> Source:
        """The source of the other datamodule, with few images and a training split only."""
        source, samples = self.data.source, self.data.train_samples
        count = min(len(samples), self.batch_size)
        few = samples.subset([len(samples) * number // count for number in range(count)])
        read = source.read
        if self.in_memory:
            read = {file: np.array(source.read(file)) for file in few.files}.__getitem__
        return replace(source, splits={"train": few}, read=read)


class StepTimer(Callback):
    """Notes the time of each step after the warm-up, and the memory before the first and at the end.

    Attributes:
        seconds: of each timed step.
        base_bytes, peak_bytes: memory before the first step, and the most until the end.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.base_bytes = self.peak_bytes = 0
        self._started = self._last = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_cuda = pl_module.device.type == "cuda"
        self.base_bytes = torch.cuda.memory_allocated() if is_cuda else peak_memory(is_cuda)
        self._started = self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_cuda = pl_module.device.type == "cuda"
        if is_cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if batch_idx >= WARMUP_STEPS:
            self.seconds.append(now - self._last)
        self._last = now
        self.peak_bytes = peak_memory(is_cuda)
        if self.seconds and now - self._started > MOST_SECONDS:
            trainer.should_stop = True


def peak_memory(is_cuda: bool) -> int:
    """The most memory that was in use so far, in bytes: of the GPU, or of this process."""
    if is_cuda:
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
