"""``lit-splitmask pretrain``: pre-trains a backbone on the images of a folder."""

from pathlib import Path
from typing import Any

import torch

from lit_splitmask import callbacks, modules
from lit_splitmask.callbacks.estimate import DAY
from lit_splitmask.commands import recipe_choice, recipes
from lit_splitmask.commands.ahead import command_of, smaller_command, tell_time
from lit_splitmask.commands.processes import launched
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import RunCLI, is_process_zero, quiet
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.commands.start import fit_to_weights, goes_on
from lit_splitmask.commands.tasks.registry import (
    TASKS,
    Task,
    root_for_finetuning,
    task_for_datamodule,
    task_for_folder,
    task_for_recipe,
)
from lit_splitmask.commands.training import (
    after_requeue,
    check_recipe_of_shards,
    fit,
    run_folder,
    starting_settings,
    with_run,
)
from lit_splitmask.errors import UserError
from lit_splitmask.images.glance import glance
from lit_splitmask.shell import copyable, say
from lit_splitmask.tokenizers import Codebook


def pretrain(request: Request) -> int:
    """Trains, and writes the backbone, the codebook, the pictures, and how the checkpoint was chosen.

    Raises:
        UserError: The images or the settings cannot be used, or training failed.
    """
    quiet()
    request = with_run(after_requeue(request))
    settings = starting_settings(request, _choice(request))
    if request.resume:
        request = goes_on(request, settings)
    elif request.weights is not None:
        fit_to_weights(request, settings)
    cli = RunCLI(modules.Pretrain, request.settings(weights_option="--model.weights"), settings)
    with run_folder(cli, "pretrain") as folder:
        weights = _train(request, settings, cli, folder)
    if weights is not None:
        written = ", ".join(_other_files(folder))
        say(
            f"Wrote {weights.name}, {written} in {weights.parent}. Next:\n{copyable(command_to_finetune(weights, request))}"
        )
        say(f"To view this run as a page:\n{copyable(['lit-splitmask', 'report', str(folder.path)])}")
    return 0


def command_to_finetune(weights: Path, request: Request) -> list[str]:
    """The command that comes after a pre-training.

    Args:
        weights: The backbone.
        request: The pre-training.
    """
    return ["lit-splitmask", "finetune", "--weights", str(weights), *_finetune_options(request)]


def _train(request: Request, settings: dict[str, Any], cli: RunCLI, folder: RunFolder) -> Path | None:
    """Trains and writes the files of a run; the weights on process zero, None on the others."""
    weights = folder.path / "backbone.safetensors"
    is_free = not (request.gives_length or request.resume)
    estimate = callbacks.EstimateTime(stop_above=DAY if is_free else 0.0, command=command_of(request))
    trainer, module, data = cli.build(
        folder,
        [
            callbacks.RunProgress(),
            callbacks.StopOnSignal(str(folder.last)),
            callbacks.OverfitAwareCheckpoint(str(folder.checkpoints)),
            estimate,
            callbacks.HalvesPicture(str(folder.path)),
            callbacks.ExportWeights(str(weights)),
        ],
    )
    estimate.smaller = smaller_command(request, module)
    if is_free and is_process_zero() and launched() is None and tell_time(request, settings, trainer, module, data):
        estimate.stop_above = 0.0  # it is refused before any work, or not at all
    fit(cli, folder, trainer, module, data)
    if not trainer.is_global_zero:
        return None
    assert isinstance(module, modules.Pretrain)
    tokenizer = module.objective.tokenizer_to_fit
    if isinstance(tokenizer, Codebook):
        tokenizer.save(folder.path / "codebook.safetensors")
    return weights


def _choice(request: Request) -> recipe_choice.Choice | None:
    """The recipe for the images; None if the request names settings to start from."""
    if request.root is None or request.names_settings:
        return None
    check_recipe_of_shards(request)
    found = [glance(folder) for folder in (request.root, *request.pool)]
    num_images = sum(folder.num_images for folder in found)
    return recipe_choice.choose(num_images, found[0].median_side, torch.cuda.is_available())


def _finetune_options(request: Request) -> list[str]:
    """Options of ``finetune`` for the same images, with their annotations if there are any, and for the matching recipe."""
    images, task = request.data_options(), task_for_datamodule(request.datamodule or "")
    if task.name == "regress":
        return images  # finetune chooses a recipe for them
    if request.root is not None and request.datamodule != "Shards" and Path(request.root).expanduser().is_dir():
        annotated = root_for_finetuning(request.root)
        task = _task_of(annotated)
        if task.name != "classify":
            images = ["--data.root", annotated]
    if request.recipe not in recipes.available():
        return images
    partner = recipe_choice.finetuning(request.recipe).name
    return [*images, "--recipe", partner] if task_for_recipe(partner) is task else images


def _task_of(root: str) -> Task:
    """The task of a folder; ``classify`` for one without annotations that are read, since pre-training needs none."""
    try:
        return task_for_folder(root)
    except UserError:
        return TASKS["classify"]


def _other_files(folder: RunFolder) -> list[str]:
    """What a pre-training wrote besides its weights."""
    files = [path.name for pattern in ("*.png", "metrics.csv") for path in sorted(folder.path.glob(pattern))]
    explained = (folder.checkpoints / "selection.json").is_file()
    reasons = " (selection.json and selection.png say why this checkpoint was chosen)" if explained else ""
    return [*files, f"checkpoints{reasons}"]
