"""Checkpoints that a kill or a full disk cannot damage, and the newest whole one of a folder."""

import io
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO

from lit_splitmask.errors import UserError
from lit_splitmask.files import cannot_write, is_file, whole_file
from lit_splitmask.pickles import load_tensors, reason

log = logging.getLogger(__name__)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name in the same folder, waits for the disk, and renames it.

    So a file of the final name is always whole. Lightning's own class writes into the folder for temporary files; where that is
    on another disk, it then copies over the old checkpoint, which a kill or a full disk at that moment destroys, with all hard
    links to it.

    All trainers of this project's commands and those with an :class:`OverfitAwareCheckpoint` use it. Give it to others as a
    plugin.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(plugins=[WholeCheckpointIO()], accelerator="cpu", logger=False)
        >>> type(trainer.strategy.checkpoint_io).__name__
        'WholeCheckpointIO'
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint; those at addresses such as ``s3://…`` are left to Lightning.

        Raises:
            UserError: The disk is full or fails, or the folder cannot be written to.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()  # an error in the contents appears before anything is written
        torch.save(checkpoint, buffer)
        path = Path(path)
        try:
            with whole_file(path) as file:
                file.write(buffer.getbuffer())
        except OSError as error:
            kept = (
                "The previous one is intact: then resume the run."
                if path.is_file()
                else "There is no previous one: then start the run again."
            )
            raise UserError(f"{cannot_write(path, error)} {kept}") from error


def write_whole_checkpoints(trainer: Trainer) -> None:
    """Makes a trainer write its checkpoints with :class:`WholeCheckpointIO`, unless the user chose another way."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a Lightning checkpoint without running any code in it.

    Raises:
        UserError: The file is missing, damaged, or not a Lightning checkpoint.
    """
    if not is_file(path):
        raise UserError(f"There is no checkpoint {path}: check the path.")
    try:
        checkpoint = load_tensors(path)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, … for damaged files
        raise UserError(
            f"The checkpoint {path} is damaged or truncated ({reason(error)}): use another checkpoint."
        ) from None
    if not isinstance(checkpoint, dict) or not {"state_dict", "global_step"} <= checkpoint.keys():
        raise UserError(f"{path} is not a Lightning checkpoint: it lacks state_dict or global_step.")
    return checkpoint


def newest_whole(last: Path, others: Iterable[Path] = ()) -> Path | None:
    """The intact checkpoint with the most steps; logs a message if that is not ``last``.

    Args:
        last: The checkpoint that is meant to be the newest.
        others: More checkpoints of the run, such as the best.

    Returns:
        Its path; None if none is whole.
    """
    files = [path for path in dict.fromkeys([last, *others]) if path.is_file()]
    problem = ""
    for path in sorted(files, key=_steps, reverse=True):
        try:
            step = read_checkpoint(path)["global_step"]
        except UserError as error:
            problem = f"{str(error).partition(':')[0]}. "
            continue
        if path != last:
            if last.is_file() and _steps(last) < 0:
                problem = f"{last} is damaged or truncated. "
            log.warning("%sThe newest intact checkpoint is %s, of step %d.", problem, path, step)
        return path
    return None


def _steps(path: Path) -> int:
    """The steps of a checkpoint, without reading its tensors; -1 if it is damaged."""
    try:
        return int(load_tensors(path, mmap=True)["global_step"])
    except Exception:  # torch raises RuntimeError, UnpicklingError, EOFError, … for damaged files
        return -1
