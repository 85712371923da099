"""Runs the arms of a comparison: all have the same seeds and are tuned over the same grid."""

import itertools
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import yaml

from lit_splitmask import callbacks, modules
from lit_splitmask.commands import recipes
from lit_splitmask.commands.compare import step_times
from lit_splitmask.commands.compare.checks import check_labels, check_one_device, check_splits, window_notes
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
    scale_passes,
)
from lit_splitmask.commands.compare.options import Options
from lit_splitmask.commands.compare.recommendation import recommend
from lit_splitmask.commands.run_cli import RunCLI
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.comparison import Arm
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically, write_json

LABELS = {
    "scratch": "from scratch",
    "scratch_long": "from scratch, equal total time",
    "pretrained": "own pre-training",
    "joint": "joint training, equal total time",
    "self_training": "own pre-training, then self-training",
    "given": "given weights",
    "given_own": "given weights, then own pre-training",
}
"""Labels of the arms in tables, in the order of the tables."""

STARTS = {"self_training": "pretrained"}
"""Where the arms that are made as long as pre-training and fine-tuning together start, if not from scratch."""

Starts = Mapping[int, Backbone]
"""Where the fine-tuning of each seed starts."""


@dataclass(frozen=True)
class Tuned:
    """An arm at its best point of the grid.

    Attributes:
        arm: The arm.
        point: The point with the best mean accuracy on val over the seeds that tune.
        stretch: Multiple of the recipe's steps.
        weights: Where the first seed starts; None for random initialisation.
    """

    arm: Arm
    point: GridPoint
    stretch: float
    weights: str | None


def label_of(arm: str) -> str:
    """The label of an arm in tables."""
    return LABELS.get(arm, f"own pre-training, {arm}")


class Comparison:
    """Runs the trainings of all arms.

    Args:
        options: The options of the command.
        recipe: Settings of both stages, of joint training and of self-training; the grid; the suffix of other methods' recipes.
        out: Folder of all results.

    Attributes:
        test_counts: Number of test images of each class, once :meth:`check` has read them.
        all_labelled: Whether all training images have labels, once :meth:`check` has read them.
        notes: What else to know about how the arms differ, once :meth:`check` has found it.

    Raises:
        UserError: There is no recipe for a method.
    """

    def __init__(self, options: Options, recipe: Settings, out: Path) -> None:
        self.options, self.out = options, out
        self.pretrain_recipe: Settings = recipe["pretrain"]
        self.finetune_recipe: Settings = recipe["finetune"]
        self.beside: dict[str, Settings] = {  # trained with images without labels beside those with labels
            arm: recipe[arm] for arm in ("joint", "self_training") if arm in recipe and options.equal_time
        }
        self.methods = {
            method: recipes.with_method(self.pretrain_recipe, method.partition("@")[0], recipe.get("methods"))
            for method in options.methods
        }
        self.grid = [GridPoint(settings) for settings in recipe["grid"]]
        self.tune_seeds: int | None = recipe.get("tune_seeds")
        self.seeds = range(options.looks[0])
        self.test_counts: dict[str, int] = {}
        self.all_labelled = False
        self.notes: list[str] = []
        self._tuned: dict[float, dict[str, Tuned]] = {}

    def run(self) -> dict[float, list[Arm]]:
        """Runs all trainings that are not finished; returns the arms by share of the labels.

        Raises:
            UserError: A setting, the weights or the images cannot be used, or a finished training had other settings.
        """
        self.check()
        looks = self.options.looks
        for look in looks:
            self.seeds = range(look)
            groups = self._run_seeds()
            found = [recommend(arms, len(looks)) for arms in groups.values()]
            if look == looks[-1] or all(one is not None and one.settled for one in found):
                break
            print(f"With {look} seeds not every interval excludes 0, so seeds are added.", flush=True)
        return groups

    def _run_seeds(self) -> dict[float, list[Arm]]:
        """All arms with the present seeds, by share of the labels."""
        starts: dict[str, Starts] = {"scratch": dict.fromkeys(self.seeds, SCRATCH)}
        starts["pretrained"] = {seed: self._pretrain(seed, None) for seed in self.seeds}
        for method in self.methods:
            starts[method] = {seed: self._pretrain(seed, method) for seed in self.seeds}
        if self.options.weights is not None:
            starts["given"] = dict.fromkeys(self.seeds, Backbone(self.options.weights))
            starts["given_own"] = {seed: self._pretrain(seed, None, self.options.weights) for seed in self.seeds}
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
        if "test" in data.source.splits:
            counts = np.bincount(data.source.splits["test"].labelled().labels, minlength=data.num_classes).tolist()
            self.test_counts = dict(zip(data.class_names, counts, strict=True))
        check_splits(data, self.options.root)
        self.all_labelled = bool((data.source.splits["train"].labels >= 0).all())
        if self.all_labelled and 1.0 in self.options.label_shares and "self_training" in self.beside:
            self.notes.append(
                "With all labels there are no images without labels for self-training, so it is left out."
            )
            print(self.notes[-1], flush=True)
        self.notes += window_notes(self.options.weights, data)

    def _check_pretrainings(self) -> modules.Pretrain:
        """Builds the pre-training of each method; returns that of the recipe."""
        given = [] if self.options.weights is None else [(None, self.options.weights)]
        for method, weights in (*((method, None) for method in self.methods), *given, (None, None)):
            arguments = self._pretrain_arguments(0, method, weights)
            cli = RunCLI(modules.Pretrain, arguments, self._pretrain_recipe(method))
            trainer, module, data = cli.build(RunFolder(self.out), [])
            check_one_device(trainer)
            pretrain = cast(modules.Pretrain, module)
            pretrain.check_crops(data.crop_sizes)
            if pretrain.objective.needs_labels and min(self.options.label_shares) < 1:
                raise UserError(
                    f"{method} pre-trains on all labels, so it cannot be compared at a smaller share of them: leave out "
                    "--label_shares, or the method."
                )
        return pretrain

    def _check_finetunings(self, pretrain: modules.Pretrain) -> ImageData:
        """Builds the fine-tuning from each kind of weights at each point of the grid; returns the last datamodule."""
        with tempfile.TemporaryDirectory() as directory:
            untrained = str(Path(directory) / "backbone.safetensors")
            callbacks.ExportWeights(untrained).export(pretrain, step=0)
            given = [] if self.options.weights is None else [self.options.weights]
            trainings: list[tuple[Settings, str | None]] = [
                (recipe, untrained if STARTS.get(arm) == "pretrained" else None) for arm, recipe in self.beside.items()
            ]
            trainings += [(self.finetune_recipe, weights) for weights in (None, untrained, *given)]
            for (recipe, weights), point in itertools.product(trainings, self.grid):
                arguments = self._finetune_arguments(1.0, 0, point, weights)
                cli = RunCLI(modules.Classify, arguments, recipe)
                passes_of(cli)
                trainer, module, data = cli.build(RunFolder(self.out), [])
                check_labels(data)
                check_one_device(trainer)
                cast(modules.Classify, module).build(num_classes=2)
        return data

    def _arms(self, share: float, starts: Mapping[str, Starts]) -> list[Arm]:
        """All arms for one share of the labels."""
        tuned = {name: self._tune(name, share, backbones) for name, backbones in starts.items()}
        if self.options.equal_time:
            for name, stretch in self._stretches(share).items():
                tuned[name] = self._tune(name, share, starts[STARTS.get(name, "scratch")], stretch)
        self._tuned[share] = tuned
        return [tuned[name].arm for name in (*LABELS, *self.methods) if name in tuned]

    def _stretches(self, share: float) -> dict[str, float]:
        """Multiples of the recipe's steps with which each arm takes as long as pre-training and fine-tuning together."""
        point, recipe = self.grid[0], self.finetune_recipe
        arguments = self._finetune_arguments(share, 0, point, None)
        trainings = {
            "pretrain": step_times.pretraining(self._pretrain_arguments(0, None), self.pretrain_recipe),
            "scratch_long": step_times.finetuning(arguments, recipe, share),
        }
        for name, beside in self.beside.items():
            if not (name == "self_training" and share == 1 and self.all_labelled):
                trainings[name] = step_times.finetuning(arguments, beside, share)
        known = self.out / "step_times.json"
        times: dict[str, dict[str, float]] = json.loads(known.read_text()) if known.is_file() else {}
        if times.get(f"{share:g}", {}).keys() < trainings.keys():
            print(f"— timing steps in turn: {', '.join(trainings)}", flush=True)
            times[f"{share:g}"] = step_times.step_times(trainings)
            write_json(known, times)
        seconds = {name: training.num_steps() * times[f"{share:g}"][name] for name, training in trainings.items()}
        finetune, total = seconds["scratch_long"], seconds["pretrain"] + seconds["scratch_long"]
        return {
            name: round((finetune if STARTS.get(name) == "pretrained" else total) / seconds[name], 2)
            for name in trainings
            if name != "pretrain"
        }

    def _tune(self, name: str, share: float, backbones: Starts, stretch: float = 1.0) -> Tuned:
        """Trains an arm at every point of the grid with the seeds that tune, and tests it with all seeds at the best."""

        def train(seed: int, point: GridPoint, *, test: bool = False) -> Finetuned:
            return self._finetune(name, share, seed, point, backbones[seed], test=test, stretch=stretch)

        tuning = self.seeds[: self.tune_seeds] if len(self.grid) > 1 else []
        scores = [sum(train(seed, point).val_accuracy for seed in tuning) for point in self.grid]
        point = self.grid[scores.index(max(scores))]
        tested = {seed: train(seed, point, test=True) for seed in self.seeds}
        longer = "" if stretch == 1 else f", {stretch:g} × the steps"
        arm = _arm(name, tested, f"{point}{longer}", backbones)
        return Tuned(arm, point, stretch, backbones[0].weights)

    def recommendations(self, groups: Mapping[float, Sequence[Arm]]) -> dict[float, list[str]]:
        """By share of the labels: which way of training is recommended and why, and the command; empty if none can be."""
        found = {}
        for share, arms in groups.items():
            choice = recommend(arms, len(self.options.looks))
            found[share] = [] if choice is None else [choice.sentence, self._command(share, choice.arm.name)]
        return found

    def _command(self, share: float, name: str) -> str:
        """The command that trains an arm; writes the recipe that it names."""
        tuned = self._tuned[share][name]
        recipe = self._recipe_of(name)
        settings = self._finetune_arguments(share, 0, tuned.point, tuned.weights)
        passes = scale_passes(RunCLI(modules.Classify, settings, recipe), tuned.stretch, share)
        path = self.out / f"recommended-labels{share:g}.yaml"
        text = f"# {label_of(name)}: the fine-tuning that compare recommends\n{yaml.safe_dump(recipe, sort_keys=False)}"
        write_atomically(path, text.encode())
        skipped = ("--data.index_dir=", "--data.budget.", "--model.seed=", "--data.seed=", "--data.label_share=1.0")
        options = [option for option in settings if not option.startswith(skipped)]
        return shlex.join(
            ["lit-splitmask", "finetune", f"--recipe={path}", *options, f"--data.budget.passes={passes:g}"]
        )

    def _pretrain(self, seed: int, method: str | None, weights: str | None = None) -> Backbone:
        """Pre-trains with one seed, by the recipe's method (None) or another, from random weights (None) or others."""
        name = method or ("given" if weights else "pretrain")
        how = f" by {method}" if method else " from the given weights" if weights else ""
        job = Job(
            RunFolder(self.out / f"{name}-seed{seed}"),
            f"pre-training{how}, seed {seed}",
            self._pretrain_arguments(seed, method, weights),
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
            self._recipe_of(arm),
        )
        return run_finetuning(job, stretch=stretch, share=share, test=test)

    def _recipe_of(self, arm: str) -> Settings:
        """The recipe of an arm's fine-tuning."""
        return self.beside.get(arm, self.finetune_recipe)

    def _pretrain_recipe(self, method: str | None) -> Settings:
        return self.pretrain_recipe if method is None else self.methods[method]

    def _pretrain_arguments(self, seed: int, method: str | None, weights: str | None = None) -> list[str]:
        passes = (method or "").partition("@")[2]
        budget = [f"--data.budget.passes={passes}"] if passes else []
        given = [f"--model.weights={weights}"] if weights else []
        return [*self._common_arguments(seed), *self.options.set_pretrain, *budget, *given]

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


def _arm(name: str, runs: Mapping[int, Finetuned], setting: str, starts: Starts) -> Arm:
    return Arm(
        name,
        label_of(name),
        accuracy={seed: run.test["test/accuracy"] for seed, run in runs.items()},
        seconds={seed: run.seconds + starts[seed].seconds for seed, run in runs.items()},
        setting=setting,
        correct={seed: run.correct for seed, run in runs.items()},
        test_images={seed: run.test_images for seed, run in runs.items()},
    )
