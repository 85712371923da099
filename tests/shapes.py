"""Images of coloured shapes on noise, in class folders."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "square", "stripes")
COLOURS = ((220, 60, 50), (60, 170, 80), (60, 90, 210), (230, 190, 60))
SIZES = ((40, 40), (48, 64), (72, 56))  # height, width


def draw_shape(name: str, number: int) -> np.ndarray:
    """A coloured shape on noise: (H, W, 3) uint8, another one for every number."""
    generator = np.random.default_rng([SHAPES.index(name), number])
    height, width = SIZES[number % len(SIZES)]
    image = Image.fromarray(generator.integers(60, 140, (height, width, 3), dtype=np.uint8))
    pencil = ImageDraw.Draw(image)
    colour = COLOURS[int(generator.integers(len(COLOURS)))]
    left, top = (int(value) for value in generator.integers(2, 10, 2))
    if name == "disc":
        pencil.ellipse((left, top, left + 24, top + 24), fill=colour)
    elif name == "square":
        pencil.rectangle((left, top, left + 24, top + 24), fill=colour)
    else:
        for row in range(top, top + 28, 7):
            pencil.rectangle((left, row, left + 26, row + 3), fill=colour)
    return np.asarray(image)


def write_classes(folder: Path, per_class: int, start: int = 0) -> Path:
    """Writes ``per_class`` images of each shape into class folders."""
    for name in SHAPES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + per_class):
            Image.fromarray(draw_shape(name, number)).save(folder / name / f"{name}{number:03d}.png")
    return folder
