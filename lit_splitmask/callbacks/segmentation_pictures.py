"""Draws a segmenter's predictions next to the ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor

from lit_splitmask.callbacks.drawing import class_colours, tile, write_png
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED
from lit_splitmask.modules.segment import Segment

COLUMNS = ("image", "truth", "prediction")
CELL_WIDTH = 320
"""Wider images are drawn at this width, in pixels."""

_LEGEND_ROW = 16
_VOID_COLOUR = (0, 0, 0)


def paint(classes: Tensor, num_classes: int) -> Tensor:
    """Paints classes (H, W) in their colours, IGNORED in black: (3, H, W) float in [0, 1]."""
    table = torch.from_numpy(np.concatenate([class_colours(num_classes), np.array([_VOID_COLOUR], dtype=np.uint8)]))
    classes = classes.long().cpu()
    rows = torch.where(classes == IGNORED, num_classes, classes)
    return table[rows].permute(2, 0, 1).float() / 255


@torch.no_grad()
def draw_rows(module: Segment, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """Draws image, ground truth and prediction, one row per image: (3, height, width) float in [0, 1].

    Args:
        module: A segmenter whose network is built.
        batches: Batches of one image with its map, as a datamodule gives them for evaluation.
    """
    cells = []
    for batch in batches:
        batch = {name: value.to(module.device) for name, value in batch.items()}
        shape = (batch["map"].shape[-2], batch["map"].shape[-1])
        image = F.interpolate(batch["image"].float() / 255, shape, mode="bilinear", antialias=True)[0].cpu()
        predicted = module.logits_at(batch).argmax(dim=1)[0]
        row = [image.expand(3, -1, -1), *(paint(one, module.num_classes) for one in (batch["map"][0], predicted))]
        cells += [_fit(row[0], "bilinear"), _fit(row[1], "nearest-exact"), _fit(row[2], "nearest-exact")]
    high, wide = (max(cell.shape[axis] for cell in cells) for axis in (1, 2))
    padded = [F.pad(cell, (0, wide - cell.shape[2], 0, high - cell.shape[1]), value=1.0) for cell in cells]
    return tile(torch.stack(padded), columns=len(COLUMNS))


def _fit(cell: Tensor, mode: str) -> Tensor:
    """Shrinks a cell to CELL_WIDTH if it is wider."""
    scale = min(1.0, CELL_WIDTH / cell.shape[2])
    if scale == 1:
        return cell
    shape = (max(1, round(cell.shape[1] * scale)), max(1, round(cell.shape[2] * scale)))
    return F.interpolate(cell[None], shape, mode=mode, antialias=mode == "bilinear")[0]


def draw_legend(names: Sequence[str], width: int) -> Tensor:
    """Draws the colours and names of all classes and of void, in columns: (3, height, width) float in [0, 1]."""
    entries = [*zip(names, class_colours(len(names)).tolist(), strict=True), ("no label", list(_VOID_COLOUR))]
    longest = max(len(name) for name, _ in entries)
    columns = max(1, width // (7 * longest + 28))
    rows = -(-len(entries) // columns)
    canvas = Image.new("RGB", (width, rows * _LEGEND_ROW + 4), "white")
    pencil = ImageDraw.Draw(canvas)
    for number, (name, colour) in enumerate(entries):
        left, top = number % columns * (width // columns), number // columns * _LEGEND_ROW + 4
        pencil.rectangle((left, top, left + 12, top + 10), fill=tuple(colour))
        pencil.text((left + 18, top), name, fill="black")
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255


class SegmentationPictures(Callback):
    """Draws image, ground truth and prediction of a few validation images, and the classes' colours, when training ends.

    Args:
        path: The PNG file.
        num_images: Number of images, one per row, evenly spaced in the validation set.

    Example:
        >>> SegmentationPictures("runs/mine/predictions.png", num_images=4).path.name
        'predictions.png'
    """

    def __init__(self, path: str, num_images: int = 6) -> None:
        self.path, self.num_images = Path(path), num_images

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.interrupted:
            return
        loaders: Any = trainer.val_dataloaders
        loader = loaders[0] if isinstance(loaders, list) and loaders else loaders
        if loader:
            self.draw(pl_module, loader.dataset)

    def draw(self, module: LightningModule, images: Any) -> None:
        """Writes the picture now.

        Args:
            module: A :class:`Segment`.
            images: A dataset of dicts with ``image``, ``map`` and ``size``, without the batch dimension.

        Raises:
            UserError: The module is not a :class:`Segment`.
        """
        if not isinstance(module, Segment):
            raise UserError(
                f"SegmentationPictures works with Segment, not with {type(module).__name__}: leave it out of other trainings."
            )
        count = min(self.num_images, len(images))
        indices = np.linspace(0, len(images) - 1, count).round().astype(int).tolist()
        batches = [{name: value[None] for name, value in images[index].items()} for index in indices]
        was_training = module.training
        module.eval()
        rows = draw_rows(module, batches)
        module.train(was_training)
        legend = draw_legend(module.class_names or [], rows.shape[2])
        write_png(self.path, torch.cat([rows, legend], dim=1), COLUMNS)
