"""``pretrain`` and ``finetune``."""

import shlex
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_splitmask import callbacks, datamodules, modules
from lit_splitmask.atomic import write_atomically
from lit_splitmask.callbacks.estimate import DAY
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.commands import recipes, tasks
from lit_splitmask.commands.arguments import value_of
from lit_splitmask.commands.results import Report
from lit_splitmask.commands.run_cli import (
    BUDGET_OPTIONS,
    RunCLI,
    is_process_zero,
    last_checkpoint,
    quiet,
    trainer_defaults,
)
from lit_splitmask.commands.runs import RunFolder, check_checkpoint, keep_metrics
from lit_splitmask.datamodules.base import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.tokenizers import Codebook


def _recipe_for(arguments: list[str], default: recipes.Choice | None) -> dict[str, Any]:
    """The lowest-priority settings: those of the run to be resumed, of --recipe, or of the choice."""
    name = value_of(arguments, "--recipe")
    if value_of(arguments, "--resume") not in (None, "false", "False"):
        folder = RunFolder.existing(value_of(arguments, "--runs_dir") or "runs", value_of(arguments, "--name"))
        return dict(yaml.safe_load(folder.config.read_text()))
    recipe: dict[str, Any] = {}
    if name is not None:
        recipe = recipes.read(name)
    elif default is not None:
        recipe, reason = default.settings()
        if is_process_zero() and "--print_config" not in " ".join(arguments):
            print(f"Recipe {default.name}: {reason}.")
    recipe["trainer"] = {**trainer_defaults(), **recipe.get("trainer", {})}
    return recipe


def _is_told(arguments: list[str]) -> bool:
    """Whether the arguments say which settings to take."""
    told = any(value_of(arguments, option) is not None for option in ("--config", "-c", "--recipe"))
    return told or "--resume" in " ".join(arguments)


def _choose(arguments: list[str]) -> recipes.Choice | None:
    """The pre-training recipe for the images, unless the arguments say which settings to take."""
    root, pool = value_of(arguments, "--data.root"), value_of(arguments, "--data.pool")
    if root is None or _is_told(arguments):
        return None
    glances = [datamodules.glance(folder) for folder in (root, *yaml.safe_load(pool or "[]"))]
    num_images = sum(glance.num_images for glance in glances)
    return recipes.choose(num_images, glances[0].median_side, torch.cuda.is_available())


def pretrain(arguments: list[str]) -> int:
    """``lit-splitmask pretrain``: learns a backbone from the images of a folder."""
    quiet()
    config = value_of(arguments, "--config") or value_of(arguments, "-c")
    arguments = recipes.instead_of_config(_flag(arguments))
    choice = _choose(arguments)
    cli = RunCLI(modules.Pretrain, arguments, _recipe_for(arguments, choice))
    budget_given = config not in (None, *recipes.available()) or any(
        a.startswith((*BUDGET_OPTIONS, "--trainer.max_")) for a in arguments
    )
    folder = _folder(cli, "pretrain")
    command = shlex.join(["lit-splitmask", "pretrain", *arguments])
    weights = folder.path / "backbone.safetensors"
    trainer, module, data = cli.build(
        folder,
        [
            callbacks.RunProgress(),
            callbacks.OverfitAwareCheckpoint(str(folder.checkpoints)),
            callbacks.EstimateTime(stop_above=0.0 if budget_given or cli.config.resume else DAY, command=command),
            callbacks.HalvesPicture(str(folder.path)),
            callbacks.ExportWeights(str(weights)),
        ],
    )
    _fit(cli, folder, trainer, module, data)
    assert isinstance(module, modules.Pretrain)
    tokenizer = module.objective.tokenizer_to_fit
    if not trainer.is_global_zero:
        return 0
    if isinstance(tokenizer, Codebook):
        tokenizer.save(folder.path / "codebook.safetensors")
    recipe = value_of(arguments, "--recipe")
    images = [a for option in ("--data", "--data.root", "--data.manifest") for a in _given(arguments, option)]
    root = value_of(arguments, "--data.root")
    annotated = [] if root is None else ["--data.root", tasks.root_for_finetuning(root)]
    if tasks.choose_task(annotated).name != "classify":
        images = annotated
    chosen = ["--recipe", recipes.finetuning(recipe).name] if recipe in recipes.available() else []
    if tasks.choose_task(chosen) is not tasks.choose_task(images):
        chosen = []  # the images' own task has a recipe for them
    print(
        f"Wrote {weights}, with {', '.join(_beside(folder))} beside it. Go on with:\n"
        f"  {shlex.join(['lit-splitmask', 'finetune', '--weights', str(weights), *images, *chosen])}"
    )
    return 0


def _beside(folder: RunFolder) -> list[str]:
    """What a pre-training wrote beside its weights."""
    pictures = [name for name in ("halves.png", "words.png") if (folder.path / name).is_file()]
    why = " (selection.json and .png say why this one)" if (folder.checkpoints / "selection.json").is_file() else ""
    return [*pictures, "metrics.csv", f"checkpoints{why}"]


def finetune(arguments: list[str]) -> int:
    """``lit-splitmask finetune``: trains for a task from pre-trained weights or from scratch, and tests the result."""
    quiet()
    arguments = recipes.instead_of_config(_flag(arguments))
    arguments = [a.replace("--weights", "--model.weights", 1) if a.startswith("--weights") else a for a in arguments]
    task = tasks.choose_task(arguments)
    arguments = tasks.without_task(arguments)
    root = None if _is_told(arguments) else value_of(arguments, "--data.root")
    choice = task.default_recipe(Path(root).expanduser()) if root is not None else None
    recipe = _recipe_for(arguments, choice)
    weights = value_of(arguments, "--model.weights")
    if weights is not None:
        info = load_weights(weights).info
        if choice is not None:
            recipe.get("model", {}).pop("backbone", None)  # a chosen recipe follows the weights, whatever their shape
        if "timm" in info:
            recipes.fit_to_weights(recipe, info["timm"], size=task.crops_follow_weights)
    cli = RunCLI(task.module, arguments, recipe)
    folder = _folder(cli, "finetune")
    best = ModelCheckpoint(
        str(folder.checkpoints), filename="best", monitor=task.monitor, mode="max", enable_version_counter=False
    )
    watching = [callbacks.RunProgress(), best, last_checkpoint(folder), callbacks.EstimateTime()]
    trainer, module, data = cli.build(folder, watching)
    _fit(cli, folder, trainer, module, data)
    _report(task, folder, trainer, module, data, Path(best.best_model_path or folder.last))
    return 0


def _given(arguments: list[str], option: str) -> list[str]:
    """An option with its value, if it was given."""
    value = value_of(arguments, option)
    return [] if value is None else [option, value]


def _folder(cli: RunCLI, command: str) -> RunFolder:
    """The run's folder, new or existing, with its configuration written."""
    config = cli.config
    if config.resume:
        return RunFolder.existing(config.runs_dir, config.name)
    settings = config.data.init_args
    root = Path(settings.get("manifest") or settings.root).resolve().stem
    return RunFolder.new(config.runs_dir, config.name, f"{command}-{root}")


def _fit(cli: RunCLI, folder: RunFolder, trainer: Trainer, module: LightningModule, data: ImageData) -> None:
    if is_process_zero():
        data.prepare_data()  # mistakes in the folder show before anything is written
        if cli.config.resume:
            keep_metrics(folder)
        else:
            folder.claim()
            cli.save_resolved(folder)
    ckpt_path = str(folder.last) if cli.config.resume else None
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except UserError:
        if not folder.last.exists():
            _remove_empty_run(folder)
        raise


def _remove_empty_run(folder: RunFolder) -> None:
    """Takes back a run that failed before its first checkpoint, so that its name is free again."""
    import shutil

    shutil.rmtree(folder.path, ignore_errors=True)


def _report(
    task: tasks.Task, folder: RunFolder, trainer: Trainer, module: LightningModule, data: ImageData, checkpoint: Path
) -> None:
    """Exports the best weights, evaluates them, and says what was found and how to go on."""
    assert isinstance(module, TrainModule)
    best = check_checkpoint(checkpoint)
    module.load_state_dict(best["state_dict"])
    weights = folder.path / task.weights
    if trainer.is_global_zero:
        callbacks.ExportWeights(str(weights)).export(module, best["global_step"])
    found = task.report(Report(folder, trainer, module, data, checkpoint))
    if not trainer.is_global_zero:
        return
    predict = folder.path / "predict.yaml"
    settings = {
        "model": {"class_path": task.module.__name__, "init_args": {"weights": str(weights), "keep_head": True}},
        "data": {
            "class_path": f"{type(data).__module__}.{type(data).__name__}",
            "init_args": task.predict_data(module, data),
        },
    }
    write_atomically(predict, yaml.safe_dump(settings, sort_keys=False).encode())
    written = [str(weights), str(folder.path / "metrics.csv"), *found]
    print(
        f"Wrote {', '.join(written)}. To {task.name} other images:\n"
        f"  lit-splitmask predict --config {predict} --data.root DIR"
    )


def _flag(arguments: list[str]) -> list[str]:
    """Lets ``--resume`` stand alone."""
    result = []
    for position, argument in enumerate(arguments):
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        result.append("--resume=true" if argument == "--resume" and following.startswith("--") else argument)
    return result
