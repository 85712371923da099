"""Tiny runs whose checkpoint is chosen by scripted values instead of a measured signal."""

from pathlib import Path
from typing import Any

import torch
from tiny_runs import image_data, pretrain_module, tiny_trainer

from lit_splitmask.callbacks import OverfitAwareCheckpoint
from lit_splitmask.selection.rule import Rule
from lit_splitmask.selection.signals import Signal, Sizes
from lit_splitmask.selection.snapshot import Snapshot


class Scripted(Signal):
    """Returns given values, one at each measurement."""

    name, better = "knn", "max"

    def __init__(self, *values: float, error: float = 0.0) -> None:
        self.values, self.error, self.num_measured = list(values), error, 0

    def forward_passes(self, sizes: Sizes) -> float:
        return 0.0

    def measure(self, snapshot: Snapshot) -> tuple[float, float]:
        self.num_measured += 1
        return self.values[self.num_measured - 1], self.error


def choosing(folder: Path, *values: float, **settings: Any) -> OverfitAwareCheckpoint:
    """Chooses by scripted values at every epoch."""
    given: dict[str, Any] = {"signals": [Scripted(*values)], "rule": Rule(("knn",), window=1), "most_cost": 1e9}
    return OverfitAwareCheckpoint(str(folder), **(given | settings))


def train(root: Path, *callbacks: Any, epochs: int = 6, ckpt_path: Any = None, **trainer: Any) -> Any:
    """Trains for epochs of one step each; the trainer and the module."""
    module = pretrain_module()
    used = tiny_trainer(root.parent, callbacks=list(callbacks), enable_checkpointing=True, **trainer)
    used.fit(
        module, datamodule=image_data(root, steps=epochs, num_epochs=epochs), ckpt_path=ckpt_path, weights_only=True
    )
    return used, module


def step_of(path: Path) -> int:
    """The optimizer step of a checkpoint."""
    return int(torch.load(path, weights_only=True)["global_step"])
