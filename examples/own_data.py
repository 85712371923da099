"""Train this project's classifier on your own LightningDataModule; here scikit-learn's 1,797 handwritten digits.

Run it without arguments:

    python examples/own_data.py
"""

import sys

import torch
from lightning import LightningDataModule, Trainer
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

from lit_splitmask.callbacks import RunProgress
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify


class Digits(Dataset):
    """Every fifth digit for validation, the others for training: dicts of ``image`` (1, 8, 8) uint8 and ``label``."""

    def __init__(self, *, val: bool) -> None:
        digits = load_digits()
        held_out = torch.arange(len(digits.target)) % 5 == 0
        chosen = held_out if val else ~held_out
        self.images = (torch.tensor(digits.images)[chosen] * 255 / 16).to(torch.uint8)[:, None]
        self.labels = torch.tensor(digits.target)[chosen]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": self.images[index], "label": self.labels[index]}


class DigitData(LightningDataModule):
    """Batches are dicts; the attributes tell the classifier what it needs to know."""

    image_size, channels, num_classes = 8, 1, 10

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Digits(val=False), batch_size=64, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Digits(val=True), batch_size=64)


def main(epochs: int = 20) -> None:
    """Prints the accuracy on the held-out digits."""
    shape = ViTConfig(embed_dim=64, depth=2, num_heads=2, patch_size=2, image_size=8, in_chans=1)
    trainer = Trainer(max_epochs=epochs, callbacks=[RunProgress()])
    trainer.fit(Classify(backbone=shape, mixup=0.0, cutmix=0.0), DigitData())
    print(f"accuracy {float(trainer.callback_metrics['val/accuracy']):.1%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
