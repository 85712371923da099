"""Checks of a comparison before its long trainings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning import Trainer

from lit_splitmask.checkpoints import load_weights
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import as_typed, from_here
from lit_splitmask.images.window import parse_window, show


def check_one_device(trainer: Trainer) -> None:
    """Checks that a training runs on one device.

    Raises:
        UserError: It does not.
    """
    if trainer.world_size > 1:
        raise UserError(
            "compare trains on one device, so that its arms are comparable: leave trainer.devices at 1. To pre-train on "
            "several devices, use lit-splitmask pretrain, and give the result to compare with --weights."
        )


def check_labels(data: ImageData) -> None:
    """Checks, before the images are read, that each has one label.

    Raises:
        UserError: An image may have several.
    """
    if getattr(getattr(data, "split_options", None), "labels", None) == "several":
        raise UserError(
            "compare needs one label per image: it counts each test image as right or wrong, and mean average precision, the "
            "score of several labels, has no value for a single image. Leave out data.splits.labels=several, or train both ways "
            "with finetune, and compare test/map over seeds."
        )


def check_splits(data: ImageData, root: str) -> None:
    """Checks that opened images have classes, and the splits to tune and to test on.

    Raises:
        UserError: They do not.
    """
    splits, classes = data.source.splits, "1 class" if data.num_classes == 1 else f"{data.num_classes} classes"
    if data.num_classes < 2 or not {"val", "test"} <= splits.keys():
        raise UserError(
            "compare needs labelled images of at least two classes for training, val and test, but "
            f"{root} has {classes} and the splits {', '.join(splits)}: put each class's images into its own folder, and "
            "keep data.splits.val_share and data.splits.test_share above 0."
        )


@contextmanager
def says_if_gone(out: Path) -> Iterator[None]:
    """Says that the folder of a comparison was deleted, if a file in it is missing.

    Raises:
        UserError: It was.
    """
    try:
        yield
    except FileNotFoundError as error:
        missing = as_typed(os.fsdecode(error.filename or ""))
        if not missing.is_relative_to(as_typed(out)):
            raise
        raise UserError(
            f"{from_here(missing)} is gone: {out}, or a part of it, was deleted or moved while the comparison wrote to it. The "
            "results in it are lost. Give the same command again: it runs what is not finished."
        ) from error


def window_notes(weights: str | None, data: ImageData) -> list[str]:
    """A sentence, also printed, if given weights make their arms read images of more than 8 bits with another window.

    Args:
        weights: The file of the given weights; None for none.
        data: The opened images, as the arms without these weights read them.
    """
    if weights is None or data.pixel_window is None or data.window is not None:
        return []
    theirs, measured = parse_window(load_weights(weights).info.get("pixel_window")), show(data.pixel_window)
    if theirs is None or theirs == data.pixel_window:  # without a window of theirs, all arms have the measured one
        return []
    option = f"""'["--data.window={measured}"]'"""
    note = (
        "The arms of the given weights read images of more than 8 bits with the window of these weights, "
        f"{show(theirs)}, the others with that of the images, {measured}: each as it would be used. To give all arms one window: "
        f"--set_pretrain {option} --set_finetune {option}."
    )
    print(note, flush=True)
    return [note]
