"""Pre-train in two processes on the CPU; with GPUs, leave out ``accelerator`` and ``strategy`` and set ``devices``.

Run it with a folder of images; it starts the second process itself:

    python examples/two_processes.py photos
"""

import sys

from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy

from lit_splitmask.callbacks import ExportWeights, RunProgress
from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Pretrain
from lit_splitmask.optim import OptimConfig


def main(folder: str, passes: int = 100) -> None:
    """Writes ``backbone.safetensors``. ``batch_size`` is the total of both processes."""
    data = ImageFolder(folder, image_size=48, batch_size=64, budget=Budget(passes=passes), num_workers=1)
    shape = ViTConfig(embed_dim=128, depth=4, patch_size=8, image_size=48)
    trainer = Trainer(
        max_epochs=-1,
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        callbacks=[ExportWeights("backbone.safetensors"), RunProgress()],
    )
    trainer.fit(Pretrain(backbone=shape, optim=OptimConfig(lr=1e-3)), data)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
