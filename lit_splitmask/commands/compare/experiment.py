"""Runs the arms of a comparison: all have the same seeds and are tuned over the same grid."""

import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from lightning import Trainer

from lit_splitmask import callbacks, modules
from lit_splitmask.commands import recipes
from lit_splitmask.commands.compare.jobs import (
    SCRATCH,
    Backbone,
    Finetuned,
    GridPoint,
    Job,
    Settings,
    passes_of,
    run_finetuning,
    run_pretraining,
)
from lit_splitmask.commands.compare.options import Options
from lit_splitmask.commands.run_cli import RunCLI
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.comparison import Arm
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError

LABELS = {
    "scratch": "from scratch",
    "scratch_long": "from scratch, equal total time",
    "pretrained": "own pre-training",
    "given": "given weights",
}
"""Labels of the arms in tables, in the order of the tables."""

Starts = Mapping[int, Backbone]
"""Where the fine-tuning of each seed starts."""


@dataclass(frozen=True)
class Tuned:
    """An arm at its best point of the grid.

    Attributes:
        arm: The arm.
        point: The point with the best mean accuracy on val over the seeds.
        fastest: Seconds of the fastest fine-tuning while tuning.
    """

    arm: Arm
    point: GridPoint
    fastest: float


def label_of(arm: str) -> str:
    """The label of an arm in tables."""
    return LABELS.get(arm, f"own pre-training, {arm}")


class Comparison:
    """Runs the trainings of all arms.

    Args:
        options: The options of the command.
        recipe: Settings of both stages, the grid, and the suffix of other methods' recipes.
        out: Folder of all results.

    Raises:
        UserError: There is no recipe for a method.
    """

    def __init__(self, options: Options, recipe: Settings, out: Path) -> None:
        self.options, self.out = options, out
        self.pretrain_recipe, self.finetune_recipe = recipe["pretrain"], recipe["finetune"]
        self.methods = {
            method: recipes.with_method(self.pretrain_recipe, method.partition("@")[0], recipe.get("methods"))
            for method in options.methods
        }
        self.grid = [GridPoint(settings) for settings in recipe["grid"]]
        self.seeds = range(options.seeds)

    def run(self) -> dict[float, list[Arm]]:
        """Runs all trainings that are not finished; returns the arms by share of the labels.

        Raises:
            UserError: A setting, the weights or the images cannot be used, or a finished training had other settings.
        """
        self.check()
        starts: dict[str, Starts] = {"scratch": dict.fromkeys(self.seeds, SCRATCH)}
        starts["pretrained"] = {seed: self._pretrain(seed, None) for seed in self.seeds}
        for method in self.methods:
            starts[method] = {seed: self._pretrain(seed, method) for seed in self.seeds}
        if self.options.weights is not None:
            starts["given"] = dict.fromkeys(self.seeds, Backbone(self.options.weights))
        return {share: self._arms(share, starts) for share in self.options.label_shares}

    def check(self) -> None:
        """Builds every training without running it, so that errors appear before the long pre-training.

        Raises:
            UserError: A setting, the weights or the images cannot be used.
        """
        pretrain = self._check_pretrainings()
        data = self._check_finetunings(pretrain)
        data.prepare_data()
        data.setup("validate")
        splits, classes = data.source.splits, "1 class" if data.num_classes == 1 else f"{data.num_classes} classes"
        if data.num_classes < 2 or not {"val", "test"} <= splits.keys():
            raise UserError(
                "compare needs labelled images of at least two classes for training, val and test, but "
                f"{self.options.root} has {classes} and the splits {', '.join(splits)}: put each class's images into a folder "
                "of its own, and keep data.splits.val_share and data.splits.test_share above 0."
            )

    def _check_pretrainings(self) -> modules.Pretrain:
        """Builds the pre-training of each method; returns that of the recipe."""
        for method in (*self.methods, None):
            cli = RunCLI(modules.Pretrain, self._pretrain_arguments(0, method), self._pretrain_recipe(method))
            trainer, module, data = cli.build(RunFolder(self.out), [])
            _check_one_device(trainer)
            pretrain = cast(modules.Pretrain, module)
            pretrain.check_crops(data.crop_sizes)
            if pretrain.objective.needs_labels and min(self.options.label_shares) < 1:
                raise UserError(
                    f"{method} pre-trains on all labels, so it cannot be compared at a smaller share of them: leave out "
                    "--label_shares, or the method."
                )
        return pretrain

    def _check_finetunings(self, pretrain: modules.Pretrain) -> ImageData:
        """Builds the fine-tuning from each kind of weights at each point of the grid; returns the datamodule."""
        with tempfile.TemporaryDirectory() as directory:
            untrained = str(Path(directory) / "backbone.safetensors")
            callbacks.ExportWeights(untrained).export(pretrain, step=0)
            given = [] if self.options.weights is None else [self.options.weights]
            for point, weights in itertools.product(self.grid, [None, untrained, *given]):
                arguments = self._finetune_arguments(1.0, 0, point, weights)
                cli = RunCLI(modules.Classify, arguments, self.finetune_recipe)
                passes_of(cli)
                trainer, module, data = cli.build(RunFolder(self.out), [])
                _check_one_device(trainer)
                cast(modules.Classify, module).build(num_classes=2)
        return data

    def _arms(self, share: float, starts: Mapping[str, Starts]) -> list[Arm]:
        """All arms for one share of the labels."""
        tuned = {name: self._tune(name, share, backbones) for name, backbones in starts.items()}
        arms = {name: result.arm for name, result in tuned.items()}
        if self.options.equal_time:
            # All runs of a stage do the same work, so the fastest is the one that other programs disturbed least.
            pretraining = min(backbone.seconds for backbone in starts["pretrained"].values())
            finetuning = min(tuned[name].fastest for name in ("scratch", "pretrained"))
            stretch = round(1 + pretraining / finetuning, 2)
            arms["scratch_long"] = self._scratch_long(share, tuned["scratch"].point, stretch)
        return [arms[name] for name in (*LABELS, *self.methods) if name in arms]

    def _tune(self, name: str, share: float, backbones: Starts) -> Tuned:
        """Trains an arm at every point of the grid, and tests it at the best."""
        runs = [
            [self._finetune(name, share, seed, point, backbones[seed]) for seed in self.seeds] for point in self.grid
        ]
        scores = [sum(run.val_accuracy for run in of_point) for of_point in runs]
        point = self.grid[scores.index(max(scores))]
        tested = {seed: self._finetune(name, share, seed, point, backbones[seed], test=True) for seed in self.seeds}
        fastest = min(run.seconds for of_point in runs for run in of_point)
        return Tuned(_arm(name, tested, point, backbones), point, fastest)

    def _scratch_long(self, share: float, point: GridPoint, stretch: float) -> Arm:
        """Trains from scratch for equal total time: ``stretch`` times the steps."""
        runs = {
            seed: self._finetune("scratch_long", share, seed, point, SCRATCH, test=True, stretch=stretch)
            for seed in self.seeds
        }
        arm = _arm("scratch_long", runs, point, dict.fromkeys(self.seeds, SCRATCH))
        return replace(arm, setting=f"{arm.setting}, {stretch:g} × the steps")

    def _pretrain(self, seed: int, method: str | None) -> Backbone:
        """Pre-trains with one seed, by the recipe's method (None) or another."""
        job = Job(
            RunFolder(self.out / f"{method or 'pretrain'}-seed{seed}"),
            f"pre-training{f' by {method}' if method else ''}, seed {seed}",
            self._pretrain_arguments(seed, method),
            self._pretrain_recipe(method),
        )
        return run_pretraining(job)

    def _finetune(
        self,
        arm: str,
        share: float,
        seed: int,
        point: GridPoint,
        start: Backbone,
        *,
        test: bool = False,
        stretch: float = 1.0,
    ) -> Finetuned:
        """Fine-tunes one arm with one seed at one point of the grid."""
        longer = "" if stretch == 1 else f"-x{stretch:g}"
        job = Job(
            RunFolder(self.out / f"labels{share:g}" / f"{arm}{longer}-{point.slug}-seed{seed}"),
            f"{label_of(arm)}, {share:.0%} of labels, {point}, seed {seed}",
            self._finetune_arguments(share, seed, point, start.weights),
            self.finetune_recipe,
        )
        return run_finetuning(job, stretch=stretch, share=share, test=test)

    def _pretrain_recipe(self, method: str | None) -> Settings:
        return self.pretrain_recipe if method is None else self.methods[method]

    def _pretrain_arguments(self, seed: int, method: str | None) -> list[str]:
        passes = (method or "").partition("@")[2]
        budget = [f"--data.budget.passes={passes}"] if passes else []
        return [*self._common_arguments(seed), *self.options.set_pretrain, *budget]

    def _finetune_arguments(self, share: float, seed: int, point: GridPoint, weights: str | None) -> list[str]:
        arguments = [*self._common_arguments(seed), f"--data.label_share={share}", *self.options.set_finetune]
        return [*arguments, *point.options(), *([f"--model.weights={weights}"] if weights else [])]

    def _common_arguments(self, seed: int) -> list[str]:
        return [
            f"--data.root={self.options.root}",
            *([] if self.options.layout == "auto" else [f"--data.splits.layout={self.options.layout}"]),
            f"--data.index_dir={self.out / 'data'}",
            f"--data.seed={seed}",
            f"--model.seed={seed}",
        ]


def _arm(name: str, runs: Mapping[int, Finetuned], point: GridPoint, starts: Starts) -> Arm:
    accuracy = {seed: run.test["test/accuracy"] for seed, run in runs.items()}
    seconds = {seed: run.seconds + starts[seed].seconds for seed, run in runs.items()}
    return Arm(name, label_of(name), accuracy, seconds, str(point))


def _check_one_device(trainer: Trainer) -> None:
    if trainer.world_size > 1:
        raise UserError(
            "compare trains on one device, so that its arms are comparable: leave trainer.devices at 1. To pre-train on "
            "several devices, use lit-splitmask pretrain, and give the result to compare with --weights."
        )
