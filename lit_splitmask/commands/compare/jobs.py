"""The trainings of a comparison. Each runs once; a finished one is read from its ``result.json``."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_splitmask import callbacks, modules
from lit_splitmask.commands.run_cli import RunCLI
from lit_splitmask.commands.run_folder import RunFolder, keep_metrics
from lit_splitmask.commands.training import ends_with_143
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import remove_abandoned, write_json
from lit_splitmask.units import duration

GO_ON = "the same command again, which skips finished trainings"
"""How to continue after SIGTERM."""

Settings = dict[str, Any]
"""Settings, or the result of a training, as in YAML or JSON."""


@dataclass(frozen=True)
class GridPoint:
    """One point of the grid over which every arm is tuned.

    Attributes:
        settings: Values by option, such as ``model.optim.lr``.
    """

    settings: dict[str, float | int | str]

    def options(self) -> list[str]:
        """The point as options of ``finetune``."""
        return [f"--{name}={value}" for name, value in self.settings.items()]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self._short())

    @property
    def slug(self) -> str:
        """The point as part of a folder's name."""
        return "-".join(f"{name}{value}" for name, value in self._short())

    def _short(self) -> list[tuple[str, str]]:
        """The last part of each option's name, and its value."""
        return [
            (name.rsplit(".", 1)[-1], f"{value:g}" if isinstance(value, float) else str(value))
            for name, value in self.settings.items()
        ]


@dataclass(frozen=True)
class Backbone:
    """Where a fine-tuning starts.

    Attributes:
        weights: The file; None for random initialisation.
        seconds: Training time of its pre-training.
    """

    weights: str | None
    seconds: float = 0.0


SCRATCH = Backbone(None)


@dataclass(frozen=True)
class Finetuned:
    """The result of a fine-tuning.

    Attributes:
        val_accuracy: Accuracy of the best epoch on val, in [0, 1].
        seconds: Training time.
        test: Scores of the best epoch on test, by name; empty if it was not tested.
        correct: ``1`` or ``0`` for each test image: whether it was classified correctly. Empty in results of earlier versions.
        test_images: A digest of the test images' names.
    """

    val_accuracy: float
    seconds: float
    test: dict[str, float]
    correct: str = ""
    test_images: str = ""


@dataclass(frozen=True)
class Job:
    """A training that runs once.

    Attributes:
        folder: The folder of the run and of its ``result.json``.
        title: What is printed when it starts.
        arguments: Options of the training.
        recipe: Recipe of the training.
    """

    folder: RunFolder
    title: str
    arguments: list[str]
    recipe: Settings

    @property
    def result_file(self) -> Path:
        """The file of the result."""
        return self.folder.path / "result.json"

    def result(self, train: Callable[[], Settings]) -> Settings:
        """The result of the training, which is run unless it is finished.

        Args:
            train: Runs the training; returns its result.

        Raises:
            UserError: The folder holds a result with other settings.
        """
        if self.result_file.is_file():
            found: Settings = json.loads(self.result_file.read_text())
            self._check_same(found)
            return found
        print(f"— {self.title}", flush=True)
        start = time.monotonic()
        result = {"arguments": self.arguments, "recipe": self.recipe, **train()}
        self.save(result)
        score = f"val accuracy {100 * result['val_accuracy']:.1f} %, " if "val_accuracy" in result else ""
        print(f"  {score}{duration(time.monotonic() - start)}", flush=True)
        return result

    def save(self, result: Settings) -> None:
        """Writes the result."""
        write_json(self.result_file, result)

    def _check_same(self, found: Settings) -> None:
        if found["arguments"] != self.arguments:
            raise UserError(
                f"{self.folder.path} holds a result with other settings ({' '.join(found['arguments'])}) than these "
                f"({' '.join(self.arguments)}): give another --out, or delete it."
            )
        if found.get("recipe", self.recipe) != self.recipe:
            raise UserError(
                f"{self.folder.path} holds a result with other settings in the recipe: give another --out, or delete it."
            )


def run_pretraining(job: Job) -> Backbone:
    """Pre-trains; an interrupted pre-training continues from its last checkpoint.

    Raises:
        UserError: The images or the settings cannot be used, or the folder holds a result with other settings.
    """

    def train() -> Settings:
        folder = job.folder
        weights = folder.path / "backbone.safetensors"
        clock = callbacks.TrainingClock()
        cli = RunCLI(modules.Pretrain, job.arguments, job.recipe)
        trainer, module, data = cli.build(
            folder,
            [
                callbacks.RunProgress(),
                callbacks.StopOnSignal(str(folder.last)),
                clock,
                callbacks.OverfitAwareCheckpoint(str(folder.checkpoints)),
                callbacks.HalvesPicture(str(folder.path)),
                callbacks.ExportWeights(str(weights)),
            ],
        )
        for path in (folder.path, folder.checkpoints):
            remove_abandoned(path)
        cli.save_resolved(folder)
        checkpoint = folder.newest_checkpoint()
        if checkpoint is not None:
            keep_metrics(folder, checkpoint)
        with ends_with_143(trainer, [GO_ON]):
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return {"weights": str(weights), "seconds": clock.seconds}

    result = job.result(train)
    return Backbone(result["weights"], result["seconds"])


@dataclass(frozen=True)
class _Finetuning:
    """A fine-tuning that is built, with two of its callbacks."""

    trainer: Trainer
    module: modules.Classify
    data: ImageData
    best: ModelCheckpoint
    clock: callbacks.TrainingClock


def run_finetuning(job: Job, *, stretch: float, share: float, test: bool) -> Finetuned:
    """Fine-tunes, and tests the best epoch if ``test`` is set.

    Args:
        job: The training.
        stretch: Multiple of the recipe's steps.
        share: Share of the labels; the number of steps does not depend on it.
        test: Whether to evaluate on the test images.

    Raises:
        UserError: The images or the settings cannot be used, or the folder holds a result with other settings.
    """

    def train() -> Settings:
        run = _build_finetuning(job, stretch, share)
        remove_abandoned(job.folder.checkpoints)
        with ends_with_143(run.trainer, [GO_ON]):
            run.trainer.fit(run.module, datamodule=run.data)
        assert run.best.best_model_score is not None
        return {"val_accuracy": float(run.best.best_model_score), "seconds": run.clock.seconds}

    result = job.result(train)
    if test and "test" not in result:
        run = _build_finetuning(job, stretch, share, "--trainer.logger=false")  # a new logger would delete metrics.csv
        best = str(job.folder.checkpoints / "best.ckpt")
        (scores,) = run.trainer.test(run.module, datamodule=run.data, ckpt_path=best, weights_only=True, verbose=False)
        hits = run.module.test_hits
        result["test"] = dict(scores)
        result["correct"] = "".join(str(int(hits[index])) for index in range(len(hits)))
        result["test_images"] = _digest(run.data.source.splits["test"].files)
        job.save(result)
    more = {name: result[name] for name in ("correct", "test_images") if name in result}
    return Finetuned(result["val_accuracy"], result["seconds"], result.get("test", {}), **more)


def _digest(names: Iterable[str]) -> str:
    """A short text that differs between lists of names."""
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _build_finetuning(job: Job, stretch: float, share: float, *more: str) -> _Finetuning:
    """Builds a fine-tuning with as many passes as its steps take."""
    cli = RunCLI(modules.Classify, [*job.arguments, *more], job.recipe)
    scale_passes(cli, stretch, share)
    best = ModelCheckpoint(
        str(job.folder.checkpoints), filename="best", monitor="val/accuracy", mode="max", enable_version_counter=False
    )
    clock = callbacks.TrainingClock()
    stop = callbacks.StopOnSignal(saves=False)  # an interrupted fine-tuning starts over
    trainer, module, data = cli.build(job.folder, [callbacks.RunProgress(), stop, clock, best])
    return _Finetuning(trainer, cast(modules.Classify, module), data, best, clock)


def scale_passes(cli: RunCLI, stretch: float, share: float) -> float:
    """Sets and returns the passes of a fine-tuning that takes ``stretch`` times the recipe's steps on a share of the labels."""
    passes = round(passes_of(cli) * stretch / share, 2)
    cli.config.data.init_args.budget.passes = passes
    return passes


def passes_of(cli: RunCLI) -> float:
    """The passes of a fine-tuning's budget.

    Raises:
        UserError: The budget is not given as passes.
    """
    budget = cli.config.data.init_args.budget
    if budget is None or budget.passes is None:
        raise UserError(
            "compare scales the passes of the fine-tuning, so its budget must be given as passes: set data.budget.passes in "
            "the recipe or with --set_finetune."
        )
    return float(budget.passes)
