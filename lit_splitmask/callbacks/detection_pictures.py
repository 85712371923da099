"""Draws a detector's predictions next to the ground truth."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor

from lit_splitmask.annotations import rle
from lit_splitmask.callbacks.drawing import bright_colour, save_png
from lit_splitmask.modules.detect import Detect

OPACITY = 0.45
TITLE_HEIGHT = 16
GAP = 4


def draw_objects(pixels: Tensor, objects: dict[str, Any], class_names: Sequence[str]) -> Image.Image:
    """Draws masks, boxes and classes over an image.

    Args:
        pixels: Image (C, H, W) uint8.
        objects: ``boxes`` (n, 4) of left, top, right, bottom in pixels and ``labels`` (n,); optionally ``scores`` (n,) and
            ``masks`` (n, H, W) bool.
        class_names: Class names by label.
    """
    canvas = pixels.expand(3, -1, -1).float()
    labels = objects["labels"].tolist()
    for label, mask in zip(labels, objects.get("masks", []), strict=False):
        colour = torch.tensor(bright_colour(label), dtype=torch.float32)[:, None, None]
        canvas = torch.where(mask, (1 - OPACITY) * canvas + OPACITY * colour, canvas)
    picture = Image.fromarray(canvas.round().byte().permute(1, 2, 0).numpy())
    pencil = ImageDraw.Draw(picture)
    scores = objects["scores"].tolist() if "scores" in objects else [None] * len(labels)
    for label, box, score in zip(labels, objects["boxes"].tolist(), scores, strict=True):
        pencil.rectangle(box, outline=bright_colour(label), width=max(1, min(picture.size) // 300))
        text = class_names[label] if score is None else f"{class_names[label]} {score:.2f}"
        if box[2] - box[0] >= 6 * len(text):  # if it fits
            pencil.text((box[0] + 2, box[1] + 1), text, fill=bright_colour(label), stroke_width=1, stroke_fill="black")
    return picture


def _side_by_side(truth: Image.Image, predicted: Image.Image) -> Image.Image:
    """Two pictures of the same size, with titles."""
    width, height = truth.size
    row = Image.new("RGB", (2 * width + GAP, height + TITLE_HEIGHT), "white")
    for number, (picture, title) in enumerate(((truth, "truth"), (predicted, "predicted"))):
        row.paste(picture, (number * (width + GAP), TITLE_HEIGHT))
        ImageDraw.Draw(row).text((number * (width + GAP) + 2, 2), title, fill="black")
    return row


class DetectionPictures(Callback):
    """Draws ground truth and predictions of a few validation images side by side when training ends.

    Args:
        directory: Folder for ``detections.png``.
        num_images: Number of images, one per row, spread over the validation set.
        threshold: Score below which detections are not drawn.

    Example:
        >>> DetectionPictures("runs/mine", num_images=8).path.name
        'detections.png'
    """

    def __init__(self, directory: str, num_images: int = 4, threshold: float = 0.5) -> None:
        self.path, self.num_images, self.threshold = Path(directory) / "detections.png", num_images, threshold

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.interrupted and isinstance(pl_module, Detect):
            self.draw(trainer.datamodule, pl_module)  # type: ignore[attr-defined]

    def draw(self, data: Any, module: Detect, split: str = "val") -> None:
        """Writes the picture now.

        Args:
            data: A datamodule of images with boxes.
            module: A trained detector.
            split: Split of the images; training images if it does not exist.
        """
        images = data.split_images(split) or data.split_images("train")
        count = min(self.num_images, len(images))
        rows = [self._row(images[round(i * (len(images) - 1) / max(1, count - 1))], module) for i in range(count)]
        sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height + GAP for r in rows)), "white")
        top = 0
        for row in rows:
            sheet.paste(row, (0, top))
            top += row.height + GAP
        save_png(self.path, sheet)

    def _row(self, item: dict[str, Any], module: Detect) -> Image.Image:
        image, (height, width) = item["image"], item["size"]
        shown = (int(image.shape[1]), int(image.shape[2]))
        truth = dict(item["truth"])
        scale = torch.tensor([shown[1] / width, shown[0] / height] * 2)
        corners = torch.cat([truth["boxes"][:, :2], truth["boxes"][:, :2] + truth["boxes"][:, 2:]], dim=1)
        truth["boxes"] = corners * scale
        if "masks" in truth:
            truth["masks"] = [_shrunk(mask, (height, width), shown) for mask in truth["masks"]]
        found = {name: value.cpu() for name, value in module([image.to(module.device)])[0].items()}
        is_drawn = found["scores"] >= self.threshold
        found = {name: value[is_drawn] for name, value in found.items()}
        pictures = [_enlarged(draw_objects(image, objects, module.class_names or [])) for objects in (truth, found)]
        return _side_by_side(*pictures)


def _shrunk(mask: rle.Rle, size: tuple[int, int], shown: tuple[int, int]) -> Tensor:
    """A mask (H, W) bool at the size at which its image is drawn."""
    pixels = rle.decode([mask], size)[None].float()
    return torch.nn.functional.interpolate(pixels, shown)[0, 0] > 0.5


def _enlarged(picture: Image.Image, least: int = 320) -> Image.Image:
    """Enlarges small pictures by a whole factor, so that their details can be seen."""
    factor = math.ceil(least / min(picture.size))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
