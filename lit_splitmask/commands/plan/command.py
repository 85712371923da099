"""``lit-splitmask plan``: what a folder holds, and what training on it would take; trains nothing."""

import argparse
import json
import os
import shlex
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from lit_splitmask import callbacks, modules
from lit_splitmask.callbacks.estimate import DAY
from lit_splitmask.callbacks.selection import EARLIER_BESTS
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.commands import recipes
from lit_splitmask.commands.plan.images import ImageFindings, find
from lit_splitmask.commands.plan.report import new_console, show_duplicates, show_images, show_trainings
from lit_splitmask.commands.plan.training import Stage, TrainingPlan, disk_bytes
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import quiet
from lit_splitmask.commands.tasks.registry import root_for_finetuning, task_for_folder
from lit_splitmask.errors import UserError
from lit_splitmask.images.glance import glance
from lit_splitmask.images.index import FolderIndex
from lit_splitmask.units import size

INDEX_DIR = "runs/data"


@dataclass(frozen=True)
class Plan:
    """What ``plan`` tells.

    Attributes:
        root: the folder.
        images: what it holds.
        pretraining: its plan.
        finetuning: its plan; None where there is none.
        no_finetuning: why there is none; None where there is.
        disk_bytes: what the trainings would write, a cache that they share once.
        notes: what to know before starting.
        commands: how to go on.
    """

    root: str
    images: ImageFindings
    pretraining: TrainingPlan
    finetuning: TrainingPlan | None
    no_finetuning: str | None
    disk_bytes: int
    notes: list[str]
    commands: list[str]


def make_plan(root: str, index_dir: str, recipe: str | None) -> Plan:
    """Looks at the images, and plans pre-training and fine-tuning.

    Raises:
        UserError: The folder, the recipe or this machine does not allow the pre-training.
    """
    choice = recipes.Choice(recipe, "asked for by --recipe") if recipe is not None else _choose(root)
    settings, reason = choice.settings()
    choice = replace(choice, reason=reason)
    if "grid" in settings:
        raise UserError(
            f"{choice.name} is a recipe for compare: give one for pretrain (lit-splitmask recipes lists them)."
        )
    arguments = [f"--data.root={root}", f"--data.index_dir={index_dir}"]
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        stage = Stage(modules.Pretrain, arguments, settings, scratch)
        images = find(stage.index)
        pretraining = stage.plan(choice, num_checkpoints=2 + EARLIER_BESTS)  # the last, the best, earlier bests
        finetuning, no_finetuning = None, why_no_finetuning(root, stage.index)
        if no_finetuning is None:
            weights = str(scratch / "backbone.safetensors")
            callbacks.ExportWeights(weights).export(stage.module, step=0)
            partner = replace(recipes.finetuning(choice.name), num_images=choice.num_images)
            finetuning = _plan_finetuning(weights, arguments, partner, scratch)
    plans = [pretraining] if finetuning is None else [pretraining, finetuning]
    return Plan(
        root=root,
        images=images,
        pretraining=pretraining,
        finetuning=finetuning,
        no_finetuning=no_finetuning,
        disk_bytes=disk_bytes(plans),
        notes=_notes(stage.index, pretraining, finetuning),
        commands=_commands(root, index_dir, recipe, finetuning),
    )


def _choose(root: str) -> recipes.Choice:
    found = glance(root)
    return recipes.choose(found.num_images, found.median_side, torch.cuda.is_available())


def _plan_finetuning(weights: str, arguments: list[str], choice: recipes.Choice, scratch: Path) -> TrainingPlan:
    settings, reason = choice.settings()
    choice = replace(choice, reason=reason)
    recipes.fit_to_weights(settings, load_weights(weights).info["timm"])
    stage = Stage(modules.Classify, [*arguments, f"--model.weights={weights}"], settings, scratch)
    return stage.plan(choice, num_checkpoints=2)  # the last and the best


def why_no_finetuning(root: str, index: FolderIndex) -> str | None:
    """Why training a classifier on a folder is not planned; None if it is."""
    if len(index.classes) >= 2:
        return None
    annotated = root_for_finetuning(root)
    task = task_for_folder(annotated)
    if task.name != "classify":
        return (
            f"These images belong to annotations with which finetune --data.root {annotated} trains to {task.name}; only "
            "classification is timed here."
        )
    return (
        "Classification needs at least two classes, and these images have no labels: put each class's images into a folder "
        "of its own (DIR/train/<class>/… or DIR/<class>/…)."
    )


def _notes(index: FolderIndex, pretraining: TrainingPlan, finetuning: TrainingPlan | None) -> list[str]:
    notes = []
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores + 1:
        notes.append(
            f"This machine is busy (load {load:.1f} on {cores} cores): without others, training would be faster."
        )
    plans = {"Pre-training": pretraining} | ({} if finetuning is None else {"Fine-tuning": finetuning})
    for title, training in plans.items():
        if training.memory_bytes > training.device_memory_bytes:
            notes.append(
                f"{title} would take more memory than the {size(training.device_memory_bytes)} there are: lower "
                "--data.batch_size, or raise --trainer.accumulate_grad_batches."
            )
    if pretraining.total_seconds > DAY:
        notes.append(
            "Pre-training would take more than a day here: without a budget (--data.budget), pretrain refuses it."
        )
    if finetuning is not None and "val" not in index.splits:
        notes.append("There are no validation images, by which fine-tuning chooses its best epoch.")
    if finetuning is not None and "test" not in index.splits:
        notes.append("There are no test images, so a fine-tuned classifier will not be tested.")
    return notes


def _commands(root: str, index_dir: str, recipe: str | None, finetuning: TrainingPlan | None) -> list[str]:
    """How to pre-train and fine-tune as planned."""
    data = ["--data.root", root] + ([] if index_dir == INDEX_DIR else ["--data.index_dir", index_dir])
    commands = [["pretrain", *([] if recipe is None else ["--recipe", recipe]), *data]]
    if finetuning is not None:
        weights = f"runs/pretrain-{Path(root).resolve().name}/backbone.safetensors"
        commands.append(["finetune", "--recipe", finetuning.recipe, "--weights", weights, *data])
    return [shlex.join(["lit-splitmask", *command]) for command in commands]


def plan(request: Request) -> int:
    """``lit-splitmask plan``: what a folder holds, and what training on it would take."""
    quiet()
    parser = argparse.ArgumentParser(prog="lit-splitmask plan", allow_abbrev=False)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--data.root", dest="root")
    parser.add_argument("--data.index_dir", dest="index_dir", default=INDEX_DIR)
    parser.add_argument("--recipe")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(request.settings())
    roots = [root for root in (options.folder, options.root) if root is not None]
    if len(roots) != 1:
        given = "none" if not roots else " and ".join(roots)
        raise UserError(f"plan needs one folder of images (lit-splitmask plan --data.root DIR), but was given {given}.")
    result = make_plan(roots[0], options.index_dir, options.recipe)
    if options.json:
        print(json.dumps(asdict(result), indent=2, ensure_ascii=False))
    else:
        show(result)
    return 0


def show(result: Plan) -> None:
    """Prints a plan as tables."""
    console = new_console()
    show_images(console, result.images)
    show_duplicates(console, result.images)
    show_trainings(console, result.pretraining, result.finetuning)
    console.print(f"On disk, all of this would take {size(result.disk_bytes)}.")
    if result.no_finetuning is not None:
        console.print(f"Fine-tuning is not planned. {result.no_finetuning}")
    for line in result.notes:
        console.print(line)
    console.print("To start:", *result.commands, sep="\n  ", soft_wrap=True)
