"""Pictures at the end of pre-training: what the method sees and predicts, and a codebook's words."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_splitmask.callbacks.drawing import tile, write_png
from lit_splitmask.distributed import alone
from lit_splitmask.modules.pretrain import Pretrain
from lit_splitmask.objectives.pictures import Pictures
from lit_splitmask.seeding import generator_for
from lit_splitmask.selection.snapshot import undisturbed
from lit_splitmask.tokenizers.base import Codebook

MIN_CELL = 112
"""Smallest width of a cell in pixels: smaller images are enlarged by a whole number."""

MIN_IMAGES = 256
"""Smallest number of images whose patches are averaged to draw words, if there are so many."""

WORDS_SHOWN, WORD_SCALE = 1024, 3


def contact_sheet(tokenizer: Codebook, path: str | Path) -> None:
    """Draws the codebook's first 1,024 words as patches, each stretched to its own range, and writes them as PNG."""
    words = tokenizer.codebook[:WORDS_SHOWN].cpu()
    low, high = words.amin(dim=1, keepdim=True), words.amax(dim=1, keepdim=True)
    patches = (words - low) / (high - low).clamp(min=1e-6)
    images = patches.reshape(-1, tokenizer.in_chans, tokenizer.patch_size, tokenizer.patch_size)
    images = images.repeat_interleave(WORD_SCALE, dim=2).repeat_interleave(WORD_SCALE, dim=3)
    write_png(path, tile(images, columns=math.ceil(math.sqrt(len(images))), gap=1))


@torch.no_grad()
def draw_columns(module: Pretrain, images: Tensor, num_images: int = 8) -> Pictures | None:
    """Draws what the module's objective sees and predicts, with masks that depend on the module's seed only.

    Args:
        module: The module.
        images: (B, C, H, W) uint8; the first ``num_images`` are drawn, and all may serve to draw words.
        num_images: Number of rows.

    Returns:
        Columns by title, (num_images, C, H, W) float in [0, 1] each; None if the objective draws nothing.
    """

    def to_pixels(normalised: Tensor) -> Tensor:
        mean, std = module.pixel_mean[:, None, None], module.pixel_std[:, None, None]
        return (normalised * std + mean).clamp(0, 1)

    with alone():
        return module.objective.draw(
            module.views(images), generator_for(module.seed, "picture"), num_images=num_images, to_pixels=to_pixels
        )


def lay_out(columns: Pictures) -> Tensor:
    """Lays columns of pictures out, one row per image: (C, H', W') float in [0, 1]."""
    cells = torch.stack(list(columns.values()), dim=1).flatten(0, 1).float().cpu()
    scale = math.ceil(MIN_CELL / cells.shape[-1])
    return tile(F.interpolate(cells, scale_factor=float(scale), mode="nearest"), columns=len(columns))


class HalvesPicture(Callback):
    """Writes pictures of what a masked method sees and predicts when pre-training ends, with the last weights.

    The objective names the file: ``halves.png`` for SplitMask, ``masked.png`` for methods with one branch. A codebook's words go
    to ``words.png``. Other methods and modules are not drawn.

    Args:
        directory: Folder for the files.
        num_images: Number of rows of the picture.

    Example:
        >>> from lightning import Trainer
        >>> from lit_splitmask.callbacks import HalvesPicture
        >>> trainer = Trainer(callbacks=[HalvesPicture("runs/pictures", num_images=4)], logger=False)
    """

    def __init__(self, directory: str, num_images: int = 8) -> None:
        self.directory, self.num_images = Path(directory), num_images

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, Pretrain) or not trainer.is_global_zero or trainer.interrupted:
            return
        objective = pl_module.objective
        if objective.picture_file is not None:
            images = _some_images(trainer, pl_module.device)
            with undisturbed(pl_module):
                columns = draw_columns(pl_module, images, self.num_images)
            if columns is not None:
                write_png(self.directory / objective.picture_file, lay_out(columns), list(columns))
        if isinstance(objective.tokenizer_to_fit, Codebook):
            contact_sheet(objective.tokenizer_to_fit, self.directory / "words.png")


def _some_images(trainer: Trainer, device: torch.device) -> Tensor:
    """At least :data:`MIN_IMAGES` held-out images, or training images if none are held out: (B, C, H, W) uint8."""
    loaders: Any = trainer.val_dataloaders or trainer.train_dataloader
    images: list[Tensor] = []
    for batch in loaders[0] if isinstance(loaders, list) else loaders:
        images.append(batch["image"].to(device))
        if sum(map(len, images)) >= MIN_IMAGES:
            break
    return torch.cat(images)
