"""``lit-splitmask compare``: fine-tuning from own pre-training against training from scratch, over seeds."""

import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from jsonargparse import ArgumentParser
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from rich.table import Table

from lit_splitmask import callbacks, comparison, datamodules, modules
from lit_splitmask.atomic import write_atomically
from lit_splitmask.commands import recipes
from lit_splitmask.commands.report import draw, draw_curves
from lit_splitmask.commands.run_cli import RunCLI, quiet, trainer_defaults
from lit_splitmask.commands.runs import RunFolder, keep_metrics
from lit_splitmask.comparison import Arm
from lit_splitmask.datamodules.base import ImageData
from lit_splitmask.errors import UserError

LABELS = {
    "scratch": "from scratch",
    "scratch_long": "from scratch, equal total time",
    "pretrained": "own pre-training",
    "imagenet": "given weights",
}


@dataclass
class Options:
    """What is compared.

    Attributes:
        root: the folder of images.
        out: where everything is kept; by default ``runs/compare-<folder>``. What is finished there is not run again.
        recipe: a comparison recipe by name or path; by default one that fits the images.
        seeds: number of seeds; each has a pre-training of its own.
        label_shares: shares of the training labels to fine-tune with.
        weights: a local file of other pre-trained weights (ImageNet's, say) as one more arm.
        methods: other methods of pre-training, each an arm of its own: beit, mae, dino, mocov3, supervised; with passes of its
            own where they are given, as in ``mae@50``.
        equal_time: train from scratch for as long as pre-training and fine-tuning take together, too.
        set_pretrain, set_finetune: options of those commands that are set over the recipe's, such as
            ``["--data.budget.passes=50"]``.
    """

    root: str = ""
    out: str | None = None
    recipe: str | None = None
    seeds: int = 3
    label_shares: list[float] = field(default_factory=lambda: [1.0])
    weights: str | None = None
    methods: list[str] = field(default_factory=list)
    equal_time: bool = True
    set_pretrain: list[str] = field(default_factory=list)
    set_finetune: list[str] = field(default_factory=list)


class Comparison:
    """Runs the jobs of a comparison, each once: a finished one is read from its ``result.json``."""

    def __init__(self, options: Options, recipe: dict[str, Any], out: Path) -> None:
        self.options, self.out = options, out
        self.pretrain_recipe, self.finetune_recipe = recipe["pretrain"], recipe["finetune"]
        self.methods = {
            method: recipes.with_method(self.pretrain_recipe, method.partition("@")[0], recipe.get("methods"))
            for method in options.methods  # each once
        }
        self.grid: list[dict[str, Any]] = recipe["grid"]
        self.index_dir = str(out / "data")

    def run(self) -> dict[float, list[Arm]]:
        """All jobs; returns the arms of each share of the labels."""
        self.check()
        seeds = range(self.options.seeds)
        backbones = {
            name: {seed: self.pretrain(seed, method) for seed in seeds}
            for name, method in {"pretrained": None, **{method: method for method in self.methods}}.items()
        }
        return {share: self.arms(share, backbones) for share in self.options.label_shares}

    def check(self) -> None:
        """Builds every training without running it, so that mistakes show before the long pre-training."""
        wrong = [share for share in self.options.label_shares if not 0 < share <= 1]
        if wrong or not self.options.label_shares:
            held = f"holds {wrong[0]:g}" if wrong else "is empty"
            raise UserError(f"--label_shares {held}: give shares above 0 and at most 1.")
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
            arguments = [*self._common(0), *self._pretrain_options(method)]
            trainer, module, data = RunCLI(modules.Pretrain, arguments, self._recipe(method)).build(
                RunFolder(self.out), []
            )
            _check_alone(trainer)
            pretrain = cast(modules.Pretrain, module)
            pretrain.check_crops(data.crop_sizes)
            if pretrain.objective.needs_labels and min(self.options.label_shares) < 1:
                raise UserError(
                    f"{method} pre-trains on all labels, so a comparison with a part of them would say nothing: leave out "
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
                cli = RunCLI(modules.Classify, self._finetune_arguments(1.0, 0, point, weights), self.finetune_recipe)
                _passes(cli)
                trainer, module, data = cli.build(RunFolder(self.out), [])
                _check_alone(trainer)
                cast(modules.Classify, module).build(num_classes=2)
        return data

    def _recipe(self, method: str | None) -> dict[str, Any]:
        return self.pretrain_recipe if method is None else self.methods[method]

    def _pretrain_options(self, method: str | None) -> list[str]:
        passes = (method or "").partition("@")[2]
        own = [f"--data.budget.passes={passes}"] if passes else []
        return [*self.options.set_pretrain, *own]

    def pretrain(self, seed: int, method: str | None = None) -> dict[str, Any]:
        """One pre-training, by the recipe's method or another one: its weights and time."""
        folder = RunFolder(self.out / f"{method or 'pretrain'}-seed{seed}")
        arguments = [*self._common(seed), *self._pretrain_options(method)]

        def job() -> dict[str, Any]:
            cli = RunCLI(modules.Pretrain, arguments, self._recipe(method))
            weights = folder.path / "backbone.safetensors"
            clock = callbacks.TrainingClock()
            watching = [
                callbacks.RunProgress(),
                clock,
                callbacks.OverfitAwareCheckpoint(str(folder.checkpoints)),
                callbacks.HalvesPicture(str(folder.path)),
            ]
            trainer, module, data = cli.build(folder, [*watching, callbacks.ExportWeights(str(weights))])
            cli.save_resolved(folder)
            resume = str(folder.last) if folder.last.is_file() else None
            if resume:
                keep_metrics(folder)
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
            return {"weights": str(weights), "seconds": clock.seconds}

        title = f"pre-training{f' by {method}' if method else ''}, seed {seed}"
        return self._once(folder.path, title, arguments, self._recipe(method), job)

    def arms(self, share: float, pretrained: dict[str, dict[int, dict[str, Any]]]) -> list[Arm]:
        """All arms for one share of the labels; each is tuned alike: the point with the best mean on val over the seeds."""
        backbones = pretrained["pretrained"]
        starts: dict[str, Callable[[int], tuple[str | None, float]]] = {"scratch": lambda seed: (None, 0.0)}
        for name, found in pretrained.items():
            starts[name] = lambda seed, found=found: (found[seed]["weights"], found[seed]["seconds"])  # type: ignore[misc]
        if self.options.weights is not None:
            starts["imagenet"] = lambda seed: (self.options.weights, 0.0)
        arms: dict[str, Arm] = {}
        seconds: list[float] = []
        for name, start in starts.items():
            tuning = [
                [self.finetune(name, share, seed, point, start(seed)[0]) for seed in backbones] for point in self.grid
            ]
            if name in ("scratch", "pretrained"):
                seconds += [run["seconds"] for runs in tuning for run in runs]
            scores = [sum(run["val_accuracy"] for run in runs) for runs in tuning]
            point = self.grid[scores.index(max(scores))]
            runs = {s: self.finetune(name, share, s, point, start(s)[0], test=True) for s in backbones}
            arms[name] = self._arm(name, runs, point, {s: start(s)[1] for s in backbones})
        if self.options.equal_time:
            point = _point_of(arms["scratch"], self.grid)
            # All runs of a stage do the same work: the fastest is the one that other programs disturbed least.
            stretch = round(1 + min(run["seconds"] for run in backbones.values()) / min(seconds), 2)
            longer = {
                seed: self.finetune("scratch_long", share, seed, point, None, test=True, stretch=stretch)
                for seed in backbones
            }
            arm = self._arm("scratch_long", longer, point, dict.fromkeys(backbones, 0.0))
            arms["scratch_long"] = replace(arm, setting=f"{arm.setting}, {stretch:g} × the steps")
        return [arms[name] for name in (*LABELS, *self.methods) if name in arms]

    def finetune(
        self,
        arm: str,
        share: float,
        seed: int,
        point: dict[str, Any],
        weights: str | None,
        *,
        test: bool = False,
        stretch: float = 1.0,
    ) -> dict[str, Any]:
        """One fine-tuning at one point of the grid; val accuracy and, when asked, test accuracy of the best epoch."""
        longer = "" if stretch == 1 else f"-x{stretch:g}"
        folder = RunFolder(self.out / f"labels{share:g}" / f"{arm}{longer}-{_slug(point)}-seed{seed}")
        arguments = self._finetune_arguments(share, seed, point, weights)

        def build(*more: str) -> tuple[Any, Any, Any, Any, Any]:
            cli = RunCLI(modules.Classify, [*arguments, *more], self.finetune_recipe)
            # as many steps with few labels as with all
            cli.config.data.init_args.budget.passes = round(_passes(cli) * stretch / share, 2)
            best = ModelCheckpoint(
                str(folder.checkpoints),
                filename="best",
                monitor="val/accuracy",
                mode="max",
                enable_version_counter=False,
            )
            clock = callbacks.TrainingClock()
            return (*cli.build(folder, [callbacks.RunProgress(), clock, best]), best, clock)

        def train() -> dict[str, Any]:
            trainer, module, data, best, clock = build()
            trainer.fit(module, datamodule=data)
            return {"val_accuracy": float(best.best_model_score), "seconds": clock.seconds}

        title = f"{_label(arm)}, {share:.0%} of labels, {_words(point)}, seed {seed}"
        result = self._once(folder.path, title, arguments, self.finetune_recipe, train)
        if test and "test" not in result:
            trainer, module, data, _, _ = build("--trainer.logger=false")  # a new logger would delete metrics.csv
            best = str(folder.checkpoints / "best.ckpt")
            result["test"] = trainer.test(module, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)[0]
            _write_json(folder.path / "result.json", result)
        return result

    def _arm(self, name: str, runs: dict[int, dict[str, Any]], point: dict[str, Any], before: dict[int, float]) -> Arm:
        accuracy = {seed: run["test"]["test/accuracy"] for seed, run in runs.items()}
        seconds = {seed: run["seconds"] + before[seed] for seed, run in runs.items()}
        return Arm(name, _label(name), accuracy, seconds, _words(point))

    def _common(self, seed: int) -> list[str]:
        return [
            f"--data.root={self.options.root}",
            f"--data.index_dir={self.index_dir}",
            f"--data.seed={seed}",
            f"--model.seed={seed}",
        ]

    def _finetune_arguments(self, share: float, seed: int, point: dict[str, Any], weights: str | None) -> list[str]:
        arguments = [*self._common(seed), f"--data.label_share={share}", *self.options.set_finetune]
        arguments += [f"--{key}={value}" for key, value in point.items()]
        return arguments + ([f"--model.weights={weights}"] if weights else [])

    def _once(
        self,
        folder: Path,
        title: str,
        arguments: list[str],
        recipe: dict[str, Any],
        job: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """The job's result: read if it was finished with the same settings, else run now."""
        done = folder / "result.json"
        if done.is_file():
            result = json.loads(done.read_text())
            if result["arguments"] != arguments:
                raise UserError(
                    f"{folder} holds a result of other settings ({' '.join(result['arguments'])}), not of these "
                    f"({' '.join(arguments)}): give another --out, or delete it."
                )
            if result.get("recipe", recipe) != recipe:
                raise UserError(
                    f"{folder} holds a result of other settings in the recipe: give another --out, or delete it."
                )
            return dict(result)
        print(f"— {title}", flush=True)
        start = time.monotonic()
        result = {"arguments": arguments, "recipe": recipe, **job()}
        _write_json(done, result)
        score = f"val accuracy {100 * result['val_accuracy']:.1f} %, " if "val_accuracy" in result else ""
        print(f"  {score}{callbacks.clock(time.monotonic() - start)}", flush=True)
        return result


def _check_alone(trainer: Trainer) -> None:
    if trainer.world_size > 1:
        raise UserError(
            "compare trains on one device, so that its arms differ in nothing else: leave trainer.devices at 1. "
            "To pre-train on several, use lit-splitmask pretrain, and hand compare the result as --weights."
        )


def _passes(cli: RunCLI) -> float:
    """The passes of a fine-tuning's budget."""
    budget = cli.config.data.init_args.budget
    if budget is None or budget.passes is None:
        raise UserError("compare scales the fine-tuning's passes, so its budget must be given as passes.")
    return float(budget.passes)


def _label(arm: str) -> str:
    """What an arm is called in tables."""
    return LABELS.get(arm, f"own pre-training, {arm}")


def compare(arguments: list[str]) -> int:
    """``lit-splitmask compare``: is pre-training on these images worth it?"""
    quiet()
    arguments = ["--root" + a.removeprefix("--data.root") if a.startswith("--data.root") else a for a in arguments]
    parser = ArgumentParser(prog="lit-splitmask compare", description="Is pre-training on these images worth it?")
    parser.add_class_arguments(Options, as_group=False)
    options: Options = Options(**vars(parser.parse_args(_with_lists(arguments))))
    if not options.root:
        raise UserError("compare needs the folder of images: --data.root DIR.")
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}: at least 1 is needed, and 3 for a verdict.")
    glance = datamodules.glance(options.root)
    name = options.recipe
    if name is None:
        choice = recipes.choose(glance.num_images, glance.median_side, torch.cuda.is_available())
        name = choice.name.replace("splitmask", "compare", 1)
        print(f"Recipe {name}: {choice.reason}.")
    recipe = recipes.comparison(name)
    for part in ("pretrain", "finetune"):
        changed = recipes.fit_to_images(recipe[part], glance.num_images) if options.recipe is None else ""
        if changed:
            print(f"The recipe's {part} part: {changed}.")
        recipe[part]["trainer"] = {**trainer_defaults(), "devices": 1, **recipe[part].get("trainer", {})}
    out = Path(options.out or f"runs/compare-{Path(options.root).resolve().name}")
    groups = Comparison(options, recipe, out).run()
    _report(groups, options, out, name)
    return 0


def _with_lists(arguments: list[str]) -> list[str]:
    """Lets ``--methods mae,dino`` and ``--label_shares 1,0.1`` stand for lists."""
    result = list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in ("--methods", "--label_shares"):
            where = place if equals else place + 1
            value = value if equals else "".join(arguments[where : where + 1])
            if value and not value.startswith("["):
                result[where] = f"{option}=[{value}]" if equals else f"[{value}]"
    return result


def _report(groups: dict[float, list[Arm]], options: Options, out: Path, recipe: str) -> None:
    title = f"Is pre-training worth it on {Path(options.root).resolve().name}?"
    notes = [
        f"Recipe `{recipe}`, {options.seeds} seeds, each with a pre-training of its own; mean ± standard deviation over seeds.",
        "Differences are paired by seed; the interval is Student's t over the seeds.",
        "Each arm was tuned over the same grid by its mean on val; its best epoch on val was evaluated on test, once a seed.",
    ]
    console = Console()
    for share, arms in groups.items():
        table = Table(*comparison.HEADER, title=f"{share:.0%} of the labels")
        for row in comparison.rows(arms):
            table.add_row(*row)
        console.print(table)
        console.print(comparison.share_verdict(arms), highlight=False)
    report = {
        "root": options.root,
        "recipe": recipe,
        "results": [
            {
                "label_share": share,
                "verdict": comparison.share_verdict(arms),
                "arms": [asdict(arm) for arm in arms],
                "difference": asdict(
                    comparison.paired_difference(arms[0].accuracy, _named(arms, "pretrained").accuracy)
                ),
            }
            for share, arms in groups.items()
        ],
    }
    _write_json(out / "comparison.json", report)
    write_atomically(out / "comparison.md", comparison.markdown(groups, title, notes).encode())
    draw(groups, title, out / "comparison.png")
    draw_curves(groups, out, out / "curves.png")
    print(f"Wrote comparison.json, comparison.md, comparison.png and curves.png in {out}.")


def _named(arms: list[Arm], name: str) -> Arm:
    return next(arm for arm in arms if arm.name == name)


def _point_of(arm: Arm, grid: list[dict[str, Any]]) -> dict[str, Any]:
    return next(point for point in grid if _words(point) == arm.setting)


def _words(point: dict[str, Any]) -> str:
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {_short(value)}" for key, value in point.items())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _slug(point: dict[str, Any]) -> str:
    return "-".join(f"{key.rsplit('.', 1)[-1]}{_short(value)}" for key, value in point.items())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    def finite(v: Any) -> Any:
        if isinstance(v, dict):
            return {k: finite(x) for k, x in v.items()}
        if isinstance(v, list):
            return [finite(x) for x in v]
        return None if isinstance(v, float) and not math.isfinite(v) else v

    write_atomically(path, json.dumps(finite(value), indent=2).encode())
