"""Writes the trained network as one safetensors file that timm can load."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.errors import UserError
from lit_splitmask.modules.base import TrainModule


class ExportWeights(Callback):
    """Writes ``vit`` of a module of this project when training ends, with what is needed to use it elsewhere.

    Args:
        path: the file; ends in ``.safetensors``.
    """

    def __init__(self, path: str) -> None:
        if not path.endswith(".safetensors"):
            raise UserError(f"Weights are exported as safetensors, so {path} must end in .safetensors.")
        self.path = Path(path)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.interrupted:
            self.export(pl_module, trainer.global_step)

    def export(self, module: LightningModule, step: int) -> None:
        """Writes the file now."""
        if not isinstance(module, TrainModule):
            raise UserError(f"ExportWeights works with the modules of this project, not with {type(module).__name__}.")
        info: dict[str, Any] = {
            "pixel_mean": module.pixel_mean.tolist(),
            "pixel_std": module.pixel_std.tolist(),
            "step": step,
        }
        class_names = getattr(module, "class_names", None)
        if class_names:
            info["class_names"] = class_names
        save_backbone(self.path, module.vit, **info)
