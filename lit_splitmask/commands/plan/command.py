"""``lit-splitmask plan``: reports what a folder holds and what training on it would cost; trains nothing."""

import json
import logging
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from lit_splitmask import callbacks, modules
from lit_splitmask.callbacks.estimate import DAY
from lit_splitmask.callbacks.selection import EARLIER_BESTS
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.commands import recipe_choice, recipes
from lit_splitmask.commands.parser import OptionParser
from lit_splitmask.commands.plan.images import ImageFindings, find
from lit_splitmask.commands.plan.report import new_console, show_duplicates, show_images, show_trainings
from lit_splitmask.commands.plan.subject import Subject, subject_of
from lit_splitmask.commands.plan.training import Stage, TrainingPlan, disk_bytes
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import quiet
from lit_splitmask.commands.tasks.registry import classifier_recipe, task_for_folder
from lit_splitmask.datamodules.recognise import WAYS_TO_LABEL, Reading
from lit_splitmask.errors import UserError
from lit_splitmask.files import as_typed, local_folder
from lit_splitmask.images.index import FolderIndex
from lit_splitmask.images.label_sets import classes_of
from lit_splitmask.shell import copyable, wrapped
from lit_splitmask.units import duration, size

NIGHT = 36_000.0
SURELY_STARTED = 0.5
"""Share of a day that a training may take by the estimate, for pretrain to be sure to start it."""

INDEX_DIR = "runs/data"
"""Default folder of the index of the splits."""


@dataclass(frozen=True)
class Plan:
    """What ``plan`` reports.

    Attributes:
        folder: The folder or list that the user named.
        root: The images that are planned for: that folder, or the one of its training images.
        reading: What the user's folder is read as; None if a recipe reads it.
        left_out: Files of other kinds than images, by kind, in words.
        images: What the folder holds.
        pretraining: The plan of the pre-training.
        finetuning: The plan of the fine-tuning; None if it is not planned.
        no_finetuning: Why fine-tuning is not planned; None if it is.
        disk_bytes: What the trainings would write; a shared cache counts once. None if no steps are timed.
        notes: What to know before starting.
        commands: The commands that train as planned.
    """

    folder: str
    root: str
    reading: Reading | None
    left_out: list[str]
    images: ImageFindings
    pretraining: TrainingPlan
    finetuning: TrainingPlan | None
    no_finetuning: str | None
    disk_bytes: int | None
    notes: list[str]
    commands: list[str]


def make_plan(
    request: Request,
    root: str | None,
    index_dir: str,
    recipe: str | None,
    *,
    timed: bool = True,
    found: Callable[[Subject, ImageFindings], None] = lambda *_: None,
) -> Plan:
    """Inspects the images, and plans pre-training and fine-tuning.

    Args:
        request: The command.
        root: The folder of images; None if the command names a list.
        index_dir: The folder of the index of the splits.
        recipe: A pre-training recipe by name or path; None for one that fits the images.
        timed: Whether to time steps, which takes most of the time.
        found: Called with the images found, before any step is timed.

    Raises:
        UserError: The images or the recipe cannot be used, or this machine has too little memory.
    """
    given = {} if recipe is None else recipes.read(recipe)
    subject = subject_of(request, root, index_dir, given)
    choice = _choose(subject) if recipe is None else recipe_choice.Choice(recipe, "given by --recipe")
    settings, reason = choice.settings()
    choice = replace(choice, reason=reason)
    recipes.check_command(choice.name, settings, "pretrain")
    options = [*subject.options, *([] if index_dir == INDEX_DIR else ["--data.index_dir", index_dir])]
    arguments = Request.read("pretrain", options).settings()
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        stage = Stage(modules.Pretrain, arguments, settings, scratch)
        images = find(stage.index)
        found(subject, images)
        pretraining = stage.plan(choice, 2 + EARLIER_BESTS, timed=timed)  # the last, the best, earlier bests
        finetuning, no_finetuning = None, why_no_finetuning(subject, stage.index)
        if no_finetuning is None:
            weights = str(scratch / "backbone.safetensors")
            callbacks.ExportWeights(weights).export(stage.module, step=0)
            partner = replace(_partner(choice, subject, request), num_images=choice.num_images)
            finetuning = _plan_finetuning(weights, arguments, partner, scratch, timed)
    plans = [plan for plan in (pretraining, finetuning) if plan is not None]
    return Plan(
        folder=request.manifest or str(root),
        root=subject.images,
        reading=subject.reading,
        left_out=subject.left_out,
        images=images,
        pretraining=pretraining,
        finetuning=finetuning,
        no_finetuning=no_finetuning,
        disk_bytes=disk_bytes(plans),
        notes=[*subject.notes, *_notes(stage.index, pretraining, finetuning)],
        commands=_commands(subject, [*options, *_budget(pretraining)], options, recipe, finetuning),
    )


def _choose(subject: Subject) -> recipe_choice.Choice:
    return recipe_choice.choose(subject.found.num_images, subject.found.median_side, torch.cuda.is_available())


def _partner(choice: recipe_choice.Choice, subject: Subject, request: Request) -> recipe_choice.Choice:
    """The recipe that finetune chooses; a list, and images that a recipe reads, are not counted by their folders."""
    if subject.reading is None or request.manifest is not None:
        return recipe_choice.finetuning(choice.name)
    return classifier_recipe(choice.name, Path(subject.images), request)


def _plan_finetuning(
    weights: str, arguments: list[str], choice: recipe_choice.Choice, scratch: Path, timed: bool
) -> TrainingPlan:
    settings, reason = choice.settings()
    choice = replace(choice, reason=reason)
    info = load_weights(weights).info
    recipe_choice.fit_to_weights(settings, info["timm"], window=info.get("pixel_window"))
    stage = Stage(modules.Classify, [*arguments, f"--model.weights={weights}"], settings, scratch)
    return stage.plan(choice, 2, timed=timed)  # the last and the best


def why_no_finetuning(subject: Subject, index: FolderIndex) -> str | None:
    """Why no classifier can be planned; None if one can."""
    if subject.finetuning:
        root = subject.finetuning[-1]
        task = task_for_folder(root)
        return (
            f"These images have annotations, on which finetune --data.root {root} trains to {task.name}; plan times "
            "classification only."
        )
    if len(classes_of(index.classes) if index.several_labels else index.classes) >= 2:
        return None
    return f"Classification needs at least two classes, and these images have no labels: {WAYS_TO_LABEL}."


def _notes(index: FolderIndex, pretraining: TrainingPlan, finetuning: TrainingPlan | None) -> list[str]:
    notes = []
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores + 1:
        notes.append(
            f"This machine is busy (load {load:.1f} on {cores} cores): training would be faster without other programs."
        )
    plans = {"Pre-training": pretraining} | ({} if finetuning is None else {"Fine-tuning": finetuning})
    for title, training in plans.items():
        needs, has = training.memory_bytes, training.device_memory_bytes
        if needs is not None and has is not None and needs > has:
            notes.append(
                f"{title} would take more memory than the {size(has)} available: lower "
                "--data.batch_size, or raise --trainer.accumulate_grad_batches."
            )
    if _budget(pretraining):
        notes.append(
            f"Full pre-training would take {duration(pretraining.total_seconds or 0)} on this machine, so the command below "
            "sets a budget of about ten hours. Without one, pretrain starts nothing that takes more than a day."
        )
    if finetuning is not None and "val" not in index.splits:
        notes.append("There are no validation images, so fine-tuning cannot choose its best epoch.")
    if finetuning is not None and "test" not in index.splits:
        notes.append("There are no test images, so the fine-tuned classifier will not be tested.")
    return notes


def _budget(pretraining: TrainingPlan) -> list[str]:
    """A budget for a training so long that pretrain would, or might, refuse it: estimates of the same steps differ."""
    seconds = pretraining.total_seconds
    if seconds is None or seconds < SURELY_STARTED * DAY:
        return []
    return ["--data.budget.images", str(max(1, int(pretraining.images_seen * NIGHT / seconds)))]


def _commands(
    subject: Subject,
    pretraining: list[str],
    options: list[str],
    recipe: str | None,
    finetuning: TrainingPlan | None,
) -> list[str]:
    """The commands that pre-train and fine-tune as planned."""
    commands = [["pretrain", *([] if recipe is None else ["--recipe", recipe]), *pretraining]]
    weights = f"runs/pretrain-{as_typed(subject.images).stem}/backbone.safetensors"
    if finetuning is not None:
        commands.append(["finetune", "--recipe", finetuning.recipe, "--weights", weights, *options])
    elif subject.finetuning:
        commands.append(["finetune", "--weights", weights, *subject.finetuning])
    return [shlex.join(["lit-splitmask", *command]) for command in commands]


def plan(request: Request) -> int:
    """Makes a plan, and prints it as tables or JSON.

    Raises:
        UserError: The images or the recipe cannot be used, or this machine has too little memory.
    """
    quiet()
    if request.predicts_numbers:
        raise UserError(
            "plan reads the images and classes of a list, not numbers: leave out --data.target and --data. "
            "finetune --data.target COLUMN prints its estimated time when it starts."
        )
    parser = OptionParser(prog="lit-splitmask plan", allow_abbrev=False)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--data.root", dest="root")
    parser.add_argument("--data.manifest", dest="manifest")
    parser.add_argument("--data", choices=["ImageFolder", "Manifest"])
    parser.add_argument("--data.splits.layout", dest="layout")
    parser.add_argument("--data.splits.labels", dest="labels", choices=["auto", "several"])
    parser.add_argument("--data.index_dir", dest="index_dir", default=INDEX_DIR)
    parser.add_argument("--recipe")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no_timing", action="store_true")
    options = parser.parse_args(request.settings())
    roots = [root for root in (options.folder, options.root) if root is not None]
    if len(roots) > 1 or (not roots and options.manifest is None):
        given = " and ".join(roots) or "none"
        raise UserError(
            f"plan takes one folder of images (lit-splitmask plan --data.root DIR) or a list of them (--data.manifest FILE.csv), "
            f"but was given {given}."
        )
    if options.labels == "several" and options.manifest is None:
        raise UserError(
            "--data.splits.labels several is for lists: a folder gives each image one label. Give --data.manifest FILE.csv."
        )
    for place in filter(None, (*roots, options.manifest)):
        local_folder(place)
    root, timed, console = roots[0] if roots else None, not options.no_timing, new_console()

    def found(subject: Subject, images: ImageFindings) -> None:
        if not options.json:
            show_folder(console, options.manifest or str(root), subject, images)
            if timed:
                console.print("Timing a few steps of training; Ctrl-C ends the plan here.")

    with without_messages_on_the_scan():
        result = make_plan(request, root, options.index_dir, options.recipe, timed=timed, found=found)
    if options.json:
        print(json.dumps(asdict(result), indent=2, ensure_ascii=False))
    else:
        show_costs(console, result)
    return 0


@contextmanager
def without_messages_on_the_scan() -> Iterator[None]:
    """Leaves out messages that say what the report says, and what the datamodules of both trainings say again."""

    def new_in(said: set[str]) -> Callable[[logging.LogRecord], bool]:
        def is_news(record: logging.LogRecord) -> bool:
            text, known = record.getMessage(), len(said)
            said.add(text)
            return len(said) > known and not hasattr(record, "in_plan")

        return is_news

    filters = [(handler, new_in(set())) for handler in logging.getLogger().handlers]
    for handler, is_news in filters:
        handler.addFilter(is_news)
    try:
        yield
    finally:
        for handler, is_news in filters:
            handler.removeFilter(is_news)


def show_folder(console: Console, folder: str, subject: Subject, images: ImageFindings) -> None:
    """Prints what the images are."""
    if subject.reading is not None:
        console.print(wrapped(f"{folder} is {subject.reading}."), soft_wrap=True)
    show_images(console, images)
    for line in subject.left_out:
        console.print(wrapped(f"Not read: {line}"), soft_wrap=True)
    show_duplicates(console, images)


def show_costs(console: Console, result: Plan) -> None:
    """Prints what training would cost, and the commands that start it."""
    show_trainings(console, result.pretraining, result.finetuning)
    if result.disk_bytes is not None:
        console.print(f"Disk space in total: {size(result.disk_bytes)}.")
    if result.no_finetuning is not None:
        console.print(f"Fine-tuning is not planned. {result.no_finetuning}")
    for line in result.notes:
        console.print(line)
    console.print("To start:", *(copyable(shlex.split(line)) for line in result.commands), sep="\n", soft_wrap=True)
