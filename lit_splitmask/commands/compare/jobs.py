"""The trainings of a comparison, each run once: a finished one is read from its ``result.json``."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_splitmask import callbacks, modules
from lit_splitmask.commands.run_cli import RunCLI
from lit_splitmask.commands.run_folder import RunFolder, keep_metrics
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_json
from lit_splitmask.units import duration

Settings = dict[str, Any]


@dataclass(frozen=True)
class GridPoint:
    """One point of the grid that every arm is tuned over.

    Attributes:
        settings: Values by option, such as ``model.optim.lr``.
    """

    settings: Settings

    def options(self) -> list[str]:
        """As options of ``finetune``."""
        return [f"--{name}={value}" for name, value in self.settings.items()]

    def __str__(self) -> str:
        return ", ".join(f"{_last(name)} {_short(value)}" for name, value in self.settings.items())

    @property
    def slug(self) -> str:
        """For the name of a folder."""
        return "-".join(f"{_last(name)}{_short(value)}" for name, value in self.settings.items())


def _last(option: str) -> str:
    return option.rsplit(".", 1)[-1]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    """The outcome of a fine-tuning.

    Attributes:
        val_accuracy: Of the best epoch.
        seconds: Training time.
        test: Scores of the best epoch on test, by name; empty until they are asked for.
    """

    val_accuracy: float
    seconds: float
    test: dict[str, float]


@dataclass(frozen=True)
class Once:
    """A training that is run once.

    Attributes:
        folder: Where it is kept.
        title: For the terminal.
        arguments: Its options; a result of other options is not taken for this one's.
        recipe: Its recipe; likewise.
    """

    folder: RunFolder
    title: str
    arguments: list[str]
    recipe: Settings

    @property
    def _file(self) -> Path:
        return self.folder.path / "result.json"

    def run(self, job: Callable[[], Settings]) -> Settings:
        """The result: read if the training is finished, else that of the job, which is kept.

        Raises:
            UserError: The folder holds a result of other settings.
        """
        if self._file.is_file():
            result = json.loads(self._file.read_text())
            self._check_same(result)
            return dict(result)
        print(f"— {self.title}", flush=True)
        start = time.monotonic()
        result = {"arguments": self.arguments, "recipe": self.recipe, **job()}
        self.keep(result)
        score = f"val accuracy {100 * result['val_accuracy']:.1f} %, " if "val_accuracy" in result else ""
        print(f"  {score}{duration(time.monotonic() - start)}", flush=True)
        return result

    def keep(self, result: Settings) -> None:
        """Writes a result."""
        write_json(self._file, result)

    def _check_same(self, result: Settings) -> None:
        if result["arguments"] != self.arguments:
            raise UserError(
                f"{self.folder.path} holds a result of other settings ({' '.join(result['arguments'])}), not of these "
                f"({' '.join(self.arguments)}): give another --out, or delete it."
            )
        if result.get("recipe", self.recipe) != self.recipe:
            raise UserError(
                f"{self.folder.path} holds a result of other settings in the recipe: give another --out, or delete it."
            )


def run_pretraining(once: Once) -> Backbone:
    """Pre-trains, from the last checkpoint if the training was interrupted."""

    def job() -> Settings:
        folder = once.folder
        weights = folder.path / "backbone.safetensors"
        clock = callbacks.TrainingClock()
        cli = RunCLI(modules.Pretrain, once.arguments, once.recipe)
        trainer, module, data = cli.build(
            folder,
            [
                callbacks.RunProgress(),
                clock,
                callbacks.OverfitAwareCheckpoint(str(folder.checkpoints)),
                callbacks.HalvesPicture(str(folder.path)),
                callbacks.ExportWeights(str(weights)),
            ],
        )
        cli.save_resolved(folder)
        checkpoint = str(folder.last) if folder.last.is_file() else None
        if checkpoint:
            keep_metrics(folder)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return {"weights": str(weights), "seconds": clock.seconds}

    result = once.run(job)
    return Backbone(result["weights"], result["seconds"])


@dataclass(frozen=True)
class _Training:
    """A fine-tuning that is built, and what watches it."""

    trainer: Trainer
    module: LightningModule
    data: ImageData
    best: ModelCheckpoint
    clock: callbacks.TrainingClock


def run_finetuning(once: Once, *, stretch: float, share: float, test: bool) -> Finetuned:
    """Fine-tunes; if ``test`` is set, evaluates the best epoch on the test images too.

    Args:
        once: The training.
        stretch: Multiple of the recipe's steps.
        share: Share of the labels; with fewer labels, as many steps are made as with all.
        test: Whether the scores on test are wanted.
    """

    def build(*more: str) -> _Training:
        cli = RunCLI(modules.Classify, [*once.arguments, *more], once.recipe)
        cli.config.data.init_args.budget.passes = round(passes_of(cli) * stretch / share, 2)
        best = ModelCheckpoint(
            str(once.folder.checkpoints),
            filename="best",
            monitor="val/accuracy",
            mode="max",
            enable_version_counter=False,
        )
        clock = callbacks.TrainingClock()
        return _Training(*cli.build(once.folder, [callbacks.RunProgress(), clock, best]), best, clock)

    def train() -> Settings:
        training = build()
        training.trainer.fit(training.module, datamodule=training.data)
        assert training.best.best_model_score is not None
        return {"val_accuracy": float(training.best.best_model_score), "seconds": training.clock.seconds}

    result = once.run(train)
    if test and "test" not in result:
        training = build("--trainer.logger=false")  # a new logger would delete metrics.csv
        best = str(once.folder.checkpoints / "best.ckpt")
        scores = training.trainer.test(
            training.module, datamodule=training.data, ckpt_path=best, weights_only=True, verbose=False
        )
        result["test"] = dict(scores[0])
        once.keep(result)
    return Finetuned(result["val_accuracy"], result["seconds"], result.get("test", {}))


def passes_of(cli: RunCLI) -> float:
    """The passes of a fine-tuning's budget.

    Raises:
        UserError: The budget is given in another unit.
    """
    budget = cli.config.data.init_args.budget
    if budget is None or budget.passes is None:
        raise UserError("compare scales the fine-tuning's passes, so its budget must be given as passes.")
    return float(budget.passes)
