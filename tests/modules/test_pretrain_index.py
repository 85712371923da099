"""``Pretrain`` with a method that needs each image's index among the training images."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from tiny_runs import BACKBONE, image_data, tiny_trainer
from torch.utils.data import DataLoader

from lit_splitmask.errors import UserError
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Pretrain
from lit_splitmask.objectives import InstanceDiscrimination

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

TINY = ViTConfig(**BACKBONE, image_size=32)


@pytest.fixture
def root(class_folder: Callable[..., Path]) -> Path:
    return class_folder(per_class=8)


def test_training_images_are_classes_and_held_out_ones_are_not(root: Path) -> None:
    seen: list[int] = []

    class Noted(InstanceDiscrimination):
        def forward(self, batch: Any, generator: Any) -> Any:
            seen.extend(batch["index"].tolist())
            return super().forward(batch, generator)

    data, trained = image_data(root, steps=12), Pretrain(partial(Noted, crops=2), backbone=TINY)
    trainer = tiny_trainer(root.parent)
    with pytest.raises(UserError, match="compares 2 crops of each image, but the augmentation gives 1"):
        trainer.fit(trained, datamodule=data)
    trained = Pretrain(Noted, backbone=TINY)
    trainer.fit(trained, datamodule=data)
    assert trained.objective.head.out_features == data.num_train_images
    assert sorted(set(seen)) == list(range(data.num_train_images))
    assert not any(name.startswith("val/") for name in trainer.callback_metrics)
    assert trainer.validate(trained, datamodule=data, verbose=False) == [{}]


def test_own_images_without_numbers_are_no_classes() -> None:
    class Own(LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader([{"image": torch.zeros(3, 32, 32, dtype=torch.uint8)}] * 8, batch_size=4)

    class Counted(Own):
        num_train_images = 8

    for data, message in ((Own(), "their number is unknown"), (Counted(), "the batches have no index")):
        with pytest.raises(UserError, match=message):
            tiny_trainer(Path("."), max_epochs=1).fit(Pretrain(InstanceDiscrimination, backbone=TINY), datamodule=data)
