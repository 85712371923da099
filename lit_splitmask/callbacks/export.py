"""Writes the trained network as one safetensors file that timm can load."""

from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer

from lit_splitmask.callbacks.selection import chosen_checkpoint
from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.errors import UserError
from lit_splitmask.modules.base import TrainModule


class ExportWeights(Callback):
    """Writes ``vit`` of a module of this project when training ends, with what is needed to use it elsewhere.

    Where an :class:`OverfitAwareCheckpoint` of the trainer keeps an earlier checkpoint than the last, it is that one's; the last
    goes beside it, as ``<name>_last.safetensors``.

    Args:
        path: the file; ends in ``.safetensors``.
    """

    def __init__(self, path: str) -> None:
        if not path.endswith(".safetensors"):
            raise UserError(f"Weights are exported as safetensors, so {path} must end in .safetensors.")
        self.path = Path(path)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.interrupted:
            return
        chosen = chosen_checkpoint(trainer)
        if chosen is None:
            self.export(pl_module, trainer.global_step)
            return
        self.export(pl_module, trainer.global_step, self.path.with_stem(f"{self.path.stem}_last"))
        last = {name: value.clone() for name, value in pl_module.state_dict().items()}
        kept = torch.load(chosen, map_location="cpu", weights_only=True)
        pl_module.load_state_dict(kept["state_dict"])
        self.export(pl_module, kept["global_step"])
        pl_module.load_state_dict(last)

    def export(self, module: LightningModule, step: int, path: Path | None = None) -> None:
        """Writes the file now, or another one."""
        if not isinstance(module, TrainModule):
            raise UserError(f"ExportWeights works with the modules of this project, not with {type(module).__name__}.")
        parts, more = module.exported()
        save_backbone(path or self.path, module.vit, parts=parts, step=step, **module.about_pixels(), **more)
