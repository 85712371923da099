"""Writes the trained network as one safetensors file that timm can load."""

from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer

from lit_splitmask.callbacks.selection import OverfitAwareCheckpoint
from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.errors import UserError
from lit_splitmask.modules.base import TrainModule


class ExportWeights(Callback):
    """Writes the network of a module of this project when training ends, with what is needed to use it elsewhere.

    If an :class:`OverfitAwareCheckpoint` of the trainer chose an earlier checkpoint than the last, that one is exported; the last
    is exported next to it as ``<name>_last.safetensors``.

    Args:
        path: The file, which ends in ``.safetensors``.

    Raises:
        UserError: The path does not end in ``.safetensors``.

    Example:
        >>> ExportWeights("runs/mine/backbone.safetensors").path.name
        'backbone.safetensors'
    """

    def __init__(self, path: str) -> None:
        if not path.endswith(".safetensors"):
            raise UserError(
                f"Weights are exported as safetensors, so the path must end in .safetensors, but is {path}."
            )
        self.path = Path(path)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.interrupted:
            return
        chosen = _chosen_checkpoint(trainer)
        if chosen is None:
            self.export(pl_module, trainer.global_step)
            return
        self.export(pl_module, trainer.global_step, self.path.with_stem(f"{self.path.stem}_last"))
        last = {name: value.clone() for name, value in pl_module.state_dict().items()}
        checkpoint = torch.load(chosen, map_location="cpu", weights_only=True)
        pl_module.load_state_dict(checkpoint["state_dict"])
        self.export(pl_module, checkpoint["global_step"])
        pl_module.load_state_dict(last)

    def export(self, module: LightningModule, step: int, path: Path | None = None) -> None:
        """Writes the file now.

        Args:
            module: A module of this project.
            step: Optimizer steps done, for the file's metadata.
            path: Another path than the callback's.

        Raises:
            UserError: The module is not one of this project.
        """
        if not isinstance(module, TrainModule):
            raise UserError(
                f"ExportWeights works with the modules of this project, not with {type(module).__name__}: save the weights "
                "of other modules with torch.save."
            )
        tensors, info = module.exported()
        save_backbone(path or self.path, module.vit, parts=tensors, step=step, **module.preprocessing(), **info)


def _chosen_checkpoint(trainer: Trainer) -> Path | None:
    """The checkpoint that an :class:`OverfitAwareCheckpoint` of the trainer chose; None for the last one, or if nothing chose."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, OverfitAwareCheckpoint) and callback.best_step not in (None, trainer.global_step):
            return Path(callback.best_model_path)
    return None
