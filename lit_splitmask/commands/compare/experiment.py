"""The arms of a comparison: which trainings each needs, tuned alike, from the same seeds."""

import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import replace
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
    Once,
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
"""What arms are called in tables, in the order of the table."""

Starts = Mapping[int, Backbone]
"""Where the fine-tuning of each seed starts."""


def label_of(arm: str) -> str:
    """What an arm is called in tables."""
    return LABELS.get(arm, f"own pre-training, {arm}")


class Comparison:
    """Runs the trainings of all arms.

    Args:
        options: What is compared.
        recipe: Settings of both stages, the grid, and the suffix of other methods' recipes.
        out: Where everything is kept.
    """

    def __init__(self, options: Options, recipe: Settings, out: Path) -> None:
        self.options, self.out = options, out
        self.pretrain_recipe, self.finetune_recipe = recipe["pretrain"], recipe["finetune"]
        self.methods = {
            method: recipes.with_method(self.pretrain_recipe, method.partition("@")[0], recipe.get("methods"))
            for method in options.methods  # each once
        }
        self.grid = [GridPoint(settings) for settings in recipe["grid"]]
        self.seeds = range(options.seeds)

    def run(self) -> dict[float, list[Arm]]:
        """Runs everything; returns the arms of each share of the labels."""
        self.check()
        starts: dict[str, Starts] = {"scratch": dict.fromkeys(self.seeds, SCRATCH)}
        starts["pretrained"] = {seed: self._pretrain(seed, None) for seed in self.seeds}
        for method in self.methods:
            starts[method] = {seed: self._pretrain(seed, method) for seed in self.seeds}
        if self.options.weights is not None:
            starts["given"] = dict.fromkeys(self.seeds, Backbone(self.options.weights))
        return {share: self._arms(share, starts) for share in self.options.label_shares}

    def check(self) -> None:
        """Builds every training without running it, so that problems show before the long pre-training.

        Raises:
            UserError: A setting, the weights or the images cannot be used.
        """
        pretrain = self._check_pretrainings()
        data = self._check_finetunings(pretrain)
        data.prepare_data()
        data.setup("validate")
        missing = [split for split in ("val", "test") if split not in data.source.splits]
        if data.num_classes < 2 or missing:
            raise UserError(
                f"compare needs labelled images for training, val and test, but {self.options.root} has "
                f"{data.num_classes} classes and no {' and no '.join(missing) or 'labels'}: put each class's images into a "
                "folder of its own, and keep data.splits.val_share and test_share above 0."
            )

    def _check_pretrainings(self) -> modules.Pretrain:
        """Builds the pre-training of each method; returns the recipe's own."""
        for method in (*self.methods, None):
            cli = RunCLI(modules.Pretrain, self._pretrain_arguments(0, method), self._pretrain_recipe(method))
            trainer, module, data = cli.build(RunFolder(self.out), [])
            _check_one_device(trainer)
            pretrain = cast(modules.Pretrain, module)
            pretrain.check_crops(data.crop_sizes)
            if pretrain.objective.needs_labels and min(self.options.label_shares) < 1:
                raise UserError(
                    f"{method} pre-trains on all labels, so a comparison with a part of them would mean nothing: leave out "
                    "--label_shares, or the method."
                )
        return pretrain

    def _check_finetunings(self, pretrain: modules.Pretrain) -> ImageData:
        """Builds the fine-tuning from each kind of weights at each point of the grid; returns its images."""
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
        """All arms for one share of the labels; each is tuned alike: the point with the best mean on val over the seeds."""
        arms: dict[str, Arm] = {}
        points: dict[str, GridPoint] = {}
        stage_seconds: list[float] = []
        for name, backbones in starts.items():
            tuning = [
                [self._finetune(name, share, seed, point, backbones[seed]) for seed in self.seeds]
                for point in self.grid
            ]
            if name in ("scratch", "pretrained"):
                stage_seconds += [run.seconds for runs in tuning for run in runs]
            scores = [sum(run.val_accuracy for run in runs) for runs in tuning]
            points[name] = point = self.grid[scores.index(max(scores))]
            runs = {seed: self._finetune(name, share, seed, point, backbones[seed], test=True) for seed in self.seeds}
            arms[name] = _arm(name, runs, point, backbones)
        if self.options.equal_time:
            # All runs of a stage do the same work: the fastest is the one that other programs disturbed least.
            fastest_pretraining = min(backbone.seconds for backbone in starts["pretrained"].values())
            stretch = round(1 + fastest_pretraining / min(stage_seconds), 2)
            arms["scratch_long"] = self._scratch_long(share, points["scratch"], stretch)
        return [arms[name] for name in (*LABELS, *self.methods) if name in arms]

    def _scratch_long(self, share: float, point: GridPoint, stretch: float) -> Arm:
        """Training from scratch for equal total time."""
        runs = {
            seed: self._finetune("scratch_long", share, seed, point, SCRATCH, test=True, stretch=stretch)
            for seed in self.seeds
        }
        arm = _arm("scratch_long", runs, point, dict.fromkeys(self.seeds, SCRATCH))
        return replace(arm, setting=f"{arm.setting}, {stretch:g} × the steps")

    def _pretrain(self, seed: int, method: str | None) -> Backbone:
        """One pre-training, by the recipe's method or another one."""
        once = Once(
            RunFolder(self.out / f"{method or 'pretrain'}-seed{seed}"),
            f"pre-training{f' by {method}' if method else ''}, seed {seed}",
            self._pretrain_arguments(seed, method),
            self._pretrain_recipe(method),
        )
        return run_pretraining(once)

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
        """One fine-tuning at one point of the grid."""
        longer = "" if stretch == 1 else f"-x{stretch:g}"
        once = Once(
            RunFolder(self.out / f"labels{share:g}" / f"{arm}{longer}-{point.slug}-seed{seed}"),
            f"{label_of(arm)}, {share:.0%} of labels, {point}, seed {seed}",
            self._finetune_arguments(share, seed, point, start.weights),
            self.finetune_recipe,
        )
        return run_finetuning(once, stretch=stretch, share=share, test=test)

    def _pretrain_recipe(self, method: str | None) -> Settings:
        return self.pretrain_recipe if method is None else self.methods[method]

    def _pretrain_arguments(self, seed: int, method: str | None) -> list[str]:
        passes = (method or "").partition("@")[2]
        own = [f"--data.budget.passes={passes}"] if passes else []
        return [*self._common_arguments(seed), *self.options.set_pretrain, *own]

    def _finetune_arguments(self, share: float, seed: int, point: GridPoint, weights: str | None) -> list[str]:
        arguments = [*self._common_arguments(seed), f"--data.label_share={share}", *self.options.set_finetune]
        return [*arguments, *point.options(), *([f"--model.weights={weights}"] if weights else [])]

    def _common_arguments(self, seed: int) -> list[str]:
        return [
            f"--data.root={self.options.root}",
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
            "compare trains on one device, so that its arms differ in nothing else: leave trainer.devices at 1. "
            "To pre-train on several, use lit-splitmask pretrain, and hand compare the result as --weights."
        )
