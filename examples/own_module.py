"""Train your own LightningModule with this project's callbacks, which keep the checkpoint with the best features.

Run it with a folder of images:

    python examples/own_module.py photos
"""

import sys

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import nn

from lit_splitmask.callbacks import OverfitAwareCheckpoint, RunProgress
from lit_splitmask.datamodules import Budget, ImageFolder


class Denoise(LightningModule):
    """A small denoising autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.GELU(), nn.Conv2d(32, 64, 4, 2, 1))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.GELU(), nn.ConvTranspose2d(32, 3, 4, 2, 1))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What OverfitAwareCheckpoint judges: (B, C, H, W) uint8 -> (B, D)."""
        return self.encoder(images.float() / 255).mean(dim=(2, 3))

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        clean = batch["image"].float() / 255
        return F.mse_loss(self.decoder(self.encoder(clean + 0.2 * torch.randn_like(clean))), clean)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main(folder: str, passes: int = 40) -> None:
    """Writes ``runs/denoise/``: the checkpoint to keep, and why."""
    data = ImageFolder(folder, image_size=48, batch_size=64, budget=Budget(passes=passes))
    callbacks = [OverfitAwareCheckpoint("runs/denoise"), RunProgress()]
    Trainer(max_epochs=-1, callbacks=callbacks).fit(Denoise(), data)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
