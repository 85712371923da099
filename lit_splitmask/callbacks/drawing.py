"""Shared by all pictures: tiles, titles, class colours, and PNG files."""

import colorsys
import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from lit_splitmask.files import write_atomically

TITLE_HEIGHT, LINE_HEIGHT, FONT_SIZE = 20, 18, 13


def save_png(path: str | Path, picture: Image.Image) -> None:
    """Writes a picture as PNG, atomically."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def write_png(path: str | Path, image: Tensor, titles: Sequence[str] = (), legend: str = "") -> None:
    """Writes (C, H, W) float in [0, 1] as PNG, atomically, with ``titles`` above columns of equal width and a legend below."""
    picture = to_picture(image)
    if titles:
        canvas = Image.new("RGB", (picture.width, picture.height + TITLE_HEIGHT), "white")
        canvas.paste(picture, (0, TITLE_HEIGHT))
        draw = ImageDraw.Draw(canvas)
        for column, title in enumerate(titles):
            draw.text((column * picture.width // len(titles) + 2, 3), title, fill="black", font_size=FONT_SIZE)
        picture = canvas
    save_png(path, with_legend(picture, legend))


def to_picture(image: Tensor) -> Image.Image:
    """(C, H, W) float in [0, 1] as an RGB picture."""
    pixels = (image.clamp(0, 1) * 255).round().byte().cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("RGB")


def with_legend(picture: Image.Image, legend: str) -> Image.Image:
    """The picture with a text below, in as many lines as its width needs."""
    lines = textwrap.wrap(legend, max(1, 2 * picture.width // FONT_SIZE))
    canvas = Image.new("RGB", (picture.width, picture.height + LINE_HEIGHT * len(lines)), "white")
    canvas.paste(picture)
    for number, line in enumerate(lines):
        place = (2, picture.height + LINE_HEIGHT * number + 2)
        ImageDraw.Draw(canvas).text(place, line, fill="black", font_size=FONT_SIZE)
    return canvas


def with_captions(images: Tensor, captions: Sequence[str], columns: int) -> Tensor:
    """Lays out images (K, C, H, W), float in [0, 1], in rows of ``columns`` with a text below each: (3, H', W')."""
    cells = [with_legend(to_picture(image), caption) for image, caption in zip(images, captions, strict=True)]
    return tile(
        torch.stack([torch.from_numpy(np.array(cell)).permute(2, 0, 1) / 255 for cell in cells]), columns, gap=6
    )


def tile(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Lays out images in rows of ``columns`` on white, each with a gap after it: (K, C, H, W) float in [0, 1] -> (C, H', W')."""
    padded = F.pad(images, (0, gap, 0, gap), value=1.0)
    rows = math.ceil(len(images) / columns)
    blank = padded.new_ones(rows * columns - len(images), *padded.shape[1:])
    grid = torch.cat([padded, blank]).unflatten(0, (rows, columns))
    return torch.einsum("rkchw->crhkw", grid).flatten(3).flatten(1, 2)


def class_colours(num_classes: int) -> np.ndarray:
    """Pascal VOC's colours, (num_classes, 3) uint8, without the first, black, which means void."""
    colours = np.zeros((num_classes, 3), dtype=np.uint8)
    for number in range(num_classes):
        bits = number + 1
        for level in range(7, -1, -1):
            colours[number] |= np.array([bits & 1, bits >> 1 & 1, bits >> 2 & 1], dtype=np.uint8) << level
            bits >>= 3
    return colours


def bright_colour(label: int) -> tuple[int, int, int]:
    """A colour for outlines and overlays of a class; colours of neighbouring labels differ clearly."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618 % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
