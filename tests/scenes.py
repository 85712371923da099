"""Small generated images with label maps. Each class has a colour, so pixels show whether image and map match."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lit_splitmask.datamodules import Budget, SegmentationFolder, SegmentAugment
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Segment
from lit_splitmask.optim import OptimConfig

COLOURS = np.array([(40, 40, 160), (220, 60, 50), (60, 170, 80), (0, 0, 0)], dtype=np.uint8)
"""Colours of ground, disc, bar and void: the values 0, 1, 2 and 255 in the maps."""

BACKBONE: dict[str, Any] = {
    "size": "tiny",
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "patch_size": 8,
    "positions": "sincos",
}
NO_CHANGE = SegmentAugment(min_scale=1.0, max_scale=1.0, cat_max_ratio=1.0, hflip=0.0, photometric=False)


def draw_scene(number: int, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 and its classes (H, W) uint8, 0 to 2 and 255 for void; different for every number."""
    generator = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    classes = np.zeros((height, width), dtype=np.uint8)
    top, left = generator.integers(4, height // 2), generator.integers(4, width // 2)
    classes[top : top + 8, left : left + 24] = 2
    centre = generator.integers(10, height - 10), generator.integers(10, width - 10)
    classes[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 64] = 1
    classes[:2] = 255
    return COLOURS[np.minimum(classes, 3)], classes


def write_scenes(
    root: Path, counts: Mapping[str, int] | None = None, *, size: tuple[int, int] = (40, 56), values: Any = None
) -> Path:
    """Writes ``images/<split>/<number>.png`` and ``annotations/<split>/<number>.png``.

    Args:
        root: The folder.
        counts: Images by split.
        size: Height and width.
        values: Value of each class in the maps, void last; by default 0, 1, 2 and 255.
    """
    number = 0
    table = np.array([0, 1, 2, 255] if values is None else values)
    for split, count in (counts or {"train": 6, "val": 3}).items():
        for _ in range(count):
            image, classes = draw_scene(number, *size)
            save(root / "images" / split / f"{number:02d}.png", image)
            written = table[np.minimum(classes, 3)]
            save(
                root / "annotations" / split / f"{number:02d}.png",
                written.astype(np.uint8 if table.max() < 256 else np.uint16),
            )
            number += 1
    return root


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_pair(
    image: Path, label_map: Path, number: int, *, size: tuple[int, int] = (40, 56), values: Any = None
) -> None:
    """Writes an image with the noise of a photo, and its map.

    Args:
        image: Path of the image.
        label_map: Path of the map.
        number: Number of the scene.
        size: Height and width.
        values: Value of each class in the map, void last, or its colour; by default 0, 1, 2 and 255.
    """
    pixels, classes = draw_scene(number, *size)
    noise = np.random.default_rng(number).integers(-30, 31, pixels.shape)
    save(image, np.clip(pixels + noise, 0, 255).astype(np.uint8))
    table = np.array([0, 1, 2, 255] if values is None else values, dtype=np.uint8)
    save(label_map, table[np.minimum(classes, 3)])


def write_pairs(root: Path, images: str, maps: str, *, count: int = 4, start: int = 0, values: Any = None) -> Path:
    """Writes pairs under names with ``{}`` for the number, such as ``train/images/{}.png`` and ``train/masks/{}.png``."""
    for number in range(start, start + count):
        paths = [root / name.format(f"{number:02d}") for name in (images, maps)]
        write_pair(paths[0], paths[1], number, values=values)
    return root


def scene_data(root: Path, **settings: Any) -> SegmentationFolder:
    """Crops of 32 px, four per step, two epochs of two steps."""
    values: dict[str, Any] = {"image_size": 32, "batch_size": 4, "num_workers": 0, "num_epochs": 2}
    values |= {"budget": Budget(steps=4), "index_dir": str(root.parent / "index")}
    return SegmentationFolder(str(root), **(values | settings))


def segmenter(**settings: Any) -> Segment:
    """UperNet of 16 channels over a ViT of width 32 and four blocks."""
    optim = OptimConfig(lr=1e-3, reference_batch=0, schedule="poly", min_lr=0.0)
    values: dict[str, Any] = {"backbone": ViTConfig(image_size=32, **BACKBONE), "channels": 16, "optim": optim}
    return Segment(**(values | settings))


def plain_confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """A confusion matrix, pixel by pixel; rows are true classes, and -1 is left out."""
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for true, guess in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if true >= 0:
            confusion[true, guess] += 1
    return confusion
