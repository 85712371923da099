"""Times steps of several trainings in turn, so that other programs slow all of them alike."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lit_splitmask import modules
from lit_splitmask.commands.compare.jobs import Settings, scale_passes
from lit_splitmask.commands.run_cli import RunCLI
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.commands.terminal import silence
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.loading.budget import Budget
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.modules.objective_host import TrainsObjective
from lit_splitmask.tokenizers import Codebook

ROUNDS = 3
"""How many turns each training has."""

WARMUP_STEPS, TIMED_STEPS = 5, 20
MOST_SECONDS = 8.0
"""After this many seconds, a turn ends if at least one step was timed."""


@dataclass(frozen=True)
class Training:
    """A training of a comparison at its shortest length.

    Attributes:
        module: Class of the module.
        arguments: Options of the training.
        recipe: Recipe of the training.
        share: Share of the labels of a fine-tuning; None for a pre-training.
    """

    module: type[TrainModule]
    arguments: list[str]
    recipe: Settings
    share: float | None = None

    def num_steps(self) -> int:
        """Its number of optimizer steps."""
        with tempfile.TemporaryDirectory() as directory, silence():
            trainer, _, data = self._build(Path(directory), [])
            data.trainer = trainer  # the budget may depend on it
            data.prepare_data()
            data.setup("fit")
            return data.schedule.steps

    def time_steps(self) -> list[float]:
        """Seconds of a few steps in a run of its own, with loading and optimizer."""
        timer = _Timer()
        with tempfile.TemporaryDirectory() as directory, silence():
            trainer, module, data = self._build(Path(directory), [timer])
            data.budget, data.num_epochs = Budget(steps=WARMUP_STEPS + TIMED_STEPS), 1
            trainer.fit(module, datamodule=data)
        return timer.seconds

    def _build(self, directory: Path, extra: list[Callback]) -> tuple[Trainer, LightningModule, ImageData]:
        quick = ["logger=false", "enable_checkpointing=false", "enable_progress_bar=false", "limit_val_batches=0"]
        options = [f"--trainer.{option}" for option in quick]
        cli = RunCLI(self.module, [*self.arguments, *options], self.recipe)
        if self.share is not None:
            scale_passes(cli, 1, self.share)
        return cli.build(RunFolder(directory), extra)


class _Timer(Callback):
    """Notes the seconds of each step after the warm-up. Visual words are random: fitting them is not part of a step."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    @property
    def seconds(self) -> list[float]:
        """Seconds of each timed step."""
        return [later - earlier for earlier, later in itertools.pairwise(self._ends[WARMUP_STEPS - 1 :])]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        hosted = pl_module.hosted if isinstance(pl_module, TrainsObjective) else None
        tokenizer = None if hosted is None else hosted.tokenizer_to_fit
        if isinstance(tokenizer, Codebook) and tokenizer.needs_fitting:
            tokenizer.set_codebook(torch.randn_like(tokenizer.codebook))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._ends.append(time.perf_counter())
        if self.seconds and self._ends[-1] - self._ends[0] > MOST_SECONDS:
            trainer.should_stop = True


def step_times(trainings: Mapping[str, Training]) -> dict[str, float]:
    """Seconds of the median step of each training, timed in turn.

    Raises:
        UserError: A training cannot run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for _ in range(ROUNDS):
        for name, training in trainings.items():
            seconds[name] += training.time_steps()
    return {name: statistics.median(values) for name, values in seconds.items()}


def pretraining(arguments: list[str], recipe: Settings) -> Training:
    """A pre-training, to time."""
    return Training(modules.Pretrain, arguments, recipe)


def finetuning(arguments: list[str], recipe: Settings, share: float) -> Training:
    """A fine-tuning on a share of the labels, to time."""
    return Training(modules.Classify, arguments, recipe, share)
