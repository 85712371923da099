"""How long a pre-training will take, estimated before its images are read: one that is too long is refused before any work."""

import shlex
from typing import Any

from lightning import LightningModule, Trainer

from lit_splitmask.annotations.csv_table import read_table
from lit_splitmask.callbacks.estimate import DAY, too_long_message
from lit_splitmask.commands import recipes
from lit_splitmask.commands.plan.cost import Job, images_to_time, time_steps
from lit_splitmask.commands.recipe_choice import TRAINING_SHARE
from lit_splitmask.commands.request import Option, Request
from lit_splitmask.datamodules.crop_data import CropData
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.datamodules.image_folder import ImageFolder
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.own_data import OwnData
from lit_splitmask.errors import UserError
from lit_splitmask.files import local_folder
from lit_splitmask.images.glance import glance, num_training
from lit_splitmask.images.index import has_index, load_index
from lit_splitmask.loading.budget import resolve
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.seeding import seeded_globals
from lit_splitmask.shell import say
from lit_splitmask.units import duration

CPU_RECIPE = "splitmask_cpu"

FEW_IMAGES_SEEN = 10_000
"""A training that sees fewer images is short, and not timed ahead."""


def tell_time(
    request: Request, settings: dict[str, Any], trainer: Trainer, module: LightningModule, data: ImageData
) -> bool:
    """Prints how long a training will take, from a few steps on synthetic images.

    Args:
        request: The command line, which does not say how long to train.
        settings: The settings that it starts from.
        trainer: The trainer, for its processes.
        module: The module.
        data: The images, which are not read.

    Returns:
        Whether the time was found out; not if the training is short, or the number of its images is not known yet.

    Raises:
        UserError: It would take more than a day.
    """
    num_images = about_how_many(request, data)
    if num_images is None or not isinstance(data, CropData):
        return False
    schedule = resolve(
        data.budget, num_images, data.batch_size, table_passes=data.table_passes, max_passes=data.max_passes
    )
    if schedule.images < FEW_IMAGES_SEEN:
        return False
    per_device = max(1, data.batch_size // trainer.world_size)
    timed = images_to_time(trainer.strategy.root_device.type, data.image_size, per_device)
    assert isinstance(module, TrainModule)
    arguments = request.settings(weights_option="--model.weights")
    with seeded_globals(0):
        cost = time_steps(Job(type(module), arguments, settings, timed, in_memory=True, drawn=True))
    seconds = cost.seconds_of(per_device) * schedule.steps
    if seconds > DAY:
        raise UserError(
            too_long_message(
                seconds,
                steps=schedule.steps,
                images=schedule.images,
                command=command_of(request),
                smaller=smaller_command(request, module),
            )
        )
    say(
        f"About {schedule.describe()}, about {duration(seconds)} (h:mm:ss) on this machine once the images are read. "
        "--data.budget.passes N makes it shorter or longer."
    )
    return True


def about_how_many(request: Request, data: ImageData) -> int | None:
    """About how many images a pass has, from the index of an earlier run, or from names alone; None if these do not say it."""
    if isinstance(data, ListedData):
        return round(data.label_share * data.facts.release.train)
    if not isinstance(data, OwnData):
        return None
    if has_index(data.record):
        count = len(load_index(data.record).splits.get("train", []))
    elif request.manifest is not None:
        count = round(TRAINING_SHARE * len(read_table(local_folder(request.manifest)).rows))
    else:
        tree = data.check_folder() if isinstance(data, ImageFolder) else None
        count = num_training(data.root, layout=data.split_options.layout, tree=tree)
    return max(1, round(data.label_share * count)) + sum(glance(folder).num_images for folder in request.pool)


def command_of(request: Request) -> str:
    """The command line as it was given."""
    return shlex.join(["lit-splitmask", request.command, *request.arguments()])


def smaller_command(request: Request, module: LightningModule) -> str | None:
    """The same command with the recipe for CPUs; None if the network is as small already, or has the shape of given weights."""
    small = recipes.read(CPU_RECIPE)["model"]["backbone"]["embed_dim"]
    if request.weights is not None or (isinstance(module, TrainModule) and module.vit.embed_dim <= small):
        return None
    others = tuple(option for option in request.given if option.name not in ("--recipe", "--config", "-c"))
    return command_of(Request(request.command, (*others, Option("--recipe", CPU_RECIPE))))
