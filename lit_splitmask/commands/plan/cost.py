"""Times a few real steps of a training on this machine, in a separate process."""

import io
import logging
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
from lit_splitmask.images.statistics import FIXED
from lit_splitmask.loading.budget import Budget
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source
from lit_splitmask.modules import Pretrain
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.tokenizers import Codebook

WARMUP_STEPS, TIMED_STEPS = 2, 5
MOST_SECONDS = 40.0
"""After this many seconds, timing ends if at least one step was timed."""

MOST_IMAGES = {"cpu": 64, "cuda": 256}
"""Largest number of images in a timed step."""

MOST_CPU_PIXELS = 2**20
"""Largest number of pixels in a timed step on a CPU; larger images are timed in smaller batches."""

TIMING_OPTIONS = [
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
"""Options that let a training run for its timed steps alone."""


@dataclass(frozen=True)
class Job:
    """A training whose steps are timed.

    Attributes:
        module: Class of the module.
        arguments: Options of the training, as for :class:`RunCLI`.
        recipe: Recipe of the training, as for :class:`RunCLI`.
        num_images: Images in a timed step.
        in_memory: Whether the real training reads images from the pixel cache.
        drawn: Whether to train on synthetic images of the right size, so that the real ones need not be read first.
    """

    module: type[TrainModule]
    arguments: list[str]
    recipe: dict[str, Any]
    num_images: int
    in_memory: bool
    drawn: bool = False


@dataclass(frozen=True)
class StepCost:
    """Time and memory of a training step.

    Attributes:
        device: Type of the device.
        num_images: Images in a step.
        num_steps: Steps that were timed, after the warm-up.
        seconds: Median time of a step, with loading and optimizer.
        base_bytes: Memory before the first step.
        state_bytes: Memory of gradients and AdamW's two moments.
        activation_bytes: The remaining memory of a step, which grows with its images.
        parameters: Number of weights.
        weights_bytes: Size of the exported backbone or classifier.
        checkpoint_bytes: Size of one checkpoint: weights, buffers and the two moments.
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
        """Estimated time of a step with this many images."""
        return self.seconds * num_images / self.num_images

    def memory_of(self, num_images: int) -> int:
        """Estimated peak memory of one device in a step with this many images on it."""
        return self.base_bytes + self.state_bytes + round(self.activation_bytes * num_images / self.num_images)


def images_to_time(device: str, image_size: int, num_images: int) -> int:
    """Images in a timed step, where a real one has ``num_images`` on a device: all of them, if that takes only seconds."""
    most = MOST_IMAGES.get(device, MOST_IMAGES["cpu"])
    if device == "cpu":
        most = min(most, max(8, MOST_CPU_PIXELS // image_size**2))
    return min(num_images, most)


def time_alone(job: Job) -> StepCost:
    """Times a job in a new process, whose memory is that of the training alone, and which repeats no message on the images.

    Raises:
        UserError: The training cannot run, or memory runs out.
    """
    silent: Any = {"initializer": logging.disable, "initargs": (logging.WARNING,)}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), **silent) as pool:
        try:
            return pool.submit(time_steps, job).result()
        except BrokenProcessPool:
            raise UserError(
                f"The process that timed steps of {job.num_images} images was killed, most likely because this machine ran out "
                "of memory. Close other programs, or give a recipe with a smaller network or smaller images "
                "(--recipe; see lit-splitmask recipes)."
            ) from None


def time_steps(job: Job) -> StepCost:
    """Times a job in this process; if the GPU runs out of memory, with fewer images.

    Raises:
        UserError: The training cannot run, or the GPU runs out of memory with a single image.
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
        "The GPU runs out of memory with a single image per step: give a recipe with a smaller network (--recipe)."
    )


def _time_steps(job: Job, num_images: int) -> StepCost:
    timer = StepTimer()
    with tempfile.TemporaryDirectory() as directory, redirect_stdout(io.StringIO()):
        run = RunCLI(job.module, [*job.arguments, *TIMING_OPTIONS], job.recipe)
        trainer, module, data = run.build(RunFolder(Path(directory)), [timer])
        assert isinstance(data, CropData)
        if not job.drawn:
            data.setup("validate")
        if isinstance(module, Pretrain):
            _fill_codebook(module)
        few = DrawnImages(data, num_images) if job.drawn else FewImages(data, num_images, job.in_memory)
        trainer.fit(module, datamodule=few)
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
    """Sets random words: fitting would read all images, and the words do not affect the time."""
    tokenizer = module.objective.tokenizer_to_fit
    if isinstance(tokenizer, Codebook) and tokenizer.needs_fitting:
        tokenizer.set_codebook(torch.randn_like(tokenizer.codebook))


class _ShortData(CropData):
    """The crops of another datamodule, for a few steps.

    Args:
        data: The other datamodule.
        num_images: Images in a step.
    """

    def __init__(self, data: CropData, num_images: int) -> None:
        super().__init__(
            image_size=data.image_size,
            channels=data.channels,
            batch_size=num_images,
            budget=Budget(steps=WARMUP_STEPS + TIMED_STEPS),
            num_epochs=1,
            augment=data.augment,
            seed=data.seed,
            num_workers=data.num_workers,
        )


class DrawnImages(_ShortData):
    """Images of noise in two classes, of twice the size of the crops.

    Args:
        data: The other datamodule, which need not be set up.
        num_images: Images in a step.
    """

    def open_source(self) -> Source:
        """As many images as there are in a step."""
        side = 2 * self.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        train = Samples([str(number) for number in range(self.batch_size)], [i % 2 for i in range(self.batch_size)])
        return Source({"train": train}, train, ["a", "b"], lambda _: pixels, *FIXED["imagenet"])


class FewImages(_ShortData):
    """A few training images of another datamodule, for a few steps.

    Args:
        data: The other datamodule, set up.
        num_images: Images in a step; at most this many different ones are used.
        in_memory: Whether to read them first, as if the pixel cache had been built.
    """

    def __init__(self, data: CropData, num_images: int, in_memory: bool) -> None:
        super().__init__(data, num_images)
        self.data, self.in_memory = data, in_memory

    def open_source(self) -> Source:
        """The source of the other datamodule, with a few training images only."""
        source, samples = self.data.source, self.data.train_samples
        count = min(len(samples), self.batch_size)
        few = samples.subset([len(samples) * number // count for number in range(count)])
        read = source.read
        if self.in_memory:
            read = {key: np.array(source.read(key)) for key in map(few.key, range(len(few)))}.__getitem__
        return replace(source, splits={"train": few}, read=read)


class StepTimer(Callback):
    """Measures the time of each step after the warm-up, and the memory before and after training.

    Attributes:
        seconds: Time of each timed step.
        base_bytes: Memory before the first step.
        peak_bytes: Peak memory until the last step.
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
    """Peak memory so far in bytes, of the GPU or of this process."""
    if is_cuda:
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
