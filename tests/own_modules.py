"""A LightningModule, images and runs that know nothing of this project, for ``OverfitAwareCheckpoint``."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from tiny_runs import tiny_trainer
from torch import Tensor, nn
from torch.utils.data import Dataset

from lit_splitmask.callbacks import OverfitAwareCheckpoint


class Images(Dataset):
    """Random images of 8 px with their class as brightness: as tuples, lists, dicts or alone."""

    def __init__(self, count: int, kind: str = "tuple", classes: int = 2, dtype: torch.dtype = torch.uint8) -> None:
        generator = torch.Generator().manual_seed(count)
        self.labels = torch.arange(count) % classes
        images = torch.randint(128, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        self.images = images + (128 // classes * self.labels).to(torch.uint8)[:, None, None, None]
        if dtype.is_floating_point:
            self.images = self.images.to(dtype) / 255
        self.kind = kind

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image, label = self.images[index], int(self.labels[index])
        return {"tuple": (image, label), "list": [image, label], "dict": {"image": image, "label": label}}.get(
            self.kind, image
        )


class Plain(LightningModule):
    """A module with nothing of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images = batch["image"] if isinstance(batch, dict) else batch[0] if isinstance(batch, list | tuple) else batch
        return self.layer(images.flatten(1).float() / 255).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Own(Plain):
    """A module with ``features`` and nothing else of this project."""

    def features(self, images: Tensor) -> Any:
        return self.layer(images.flatten(1).float() / 255)


def fit(folder: Path, module: Any, *loaders: Any, callbacks: Any = (), trainer: Any = None, **settings: Any) -> Any:
    """Trains with the callback at its defaults but for ``settings``; the callback."""
    checkpoint = OverfitAwareCheckpoint(str(folder / "c"), **settings)
    used = tiny_trainer(
        folder, callbacks=[checkpoint, *callbacks], enable_checkpointing=True, **({"max_epochs": 1} | (trainer or {}))
    )
    used.fit(module, *loaders)
    return checkpoint


SMALL: dict[str, Any] = {"trainer": {"max_epochs": 20}, "images": (Images(40), Images(40))}
"""Settings of a run that affords two evaluations."""


def steps_of(checkpoint: OverfitAwareCheckpoint) -> list[int]:
    return [reading.step for reading in checkpoint.history]
