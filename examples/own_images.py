"""Pre-train on a folder of your own images, then fine-tune on its classes.

Run it with a folder that has one subfolder per class:

    python examples/own_images.py photos
"""

import sys

from lightning import Trainer

from lit_splitmask.callbacks import ExportWeights, RunProgress
from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.optim import OptimConfig


def main(folder: str, passes: int = 100) -> None:
    """Writes ``backbone.safetensors``, and prints the classifier's scores on the test images."""
    data = ImageFolder(folder, image_size=48, batch_size=64, budget=Budget(passes=passes))
    shape = ViTConfig(embed_dim=128, depth=4, patch_size=8, image_size=48)
    module = Pretrain(backbone=shape, optim=OptimConfig(lr=1e-3))
    Trainer(max_epochs=-1, callbacks=[ExportWeights("backbone.safetensors"), RunProgress()]).fit(module, data)

    data = ImageFolder(folder, image_size=48, batch_size=64, budget=Budget(passes=passes))
    trainer = Trainer(max_epochs=-1, callbacks=[RunProgress()])
    classifier = Classify("backbone.safetensors")
    trainer.fit(classifier, data)
    trainer.test(classifier, data)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
