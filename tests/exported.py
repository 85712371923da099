"""Weights to export, and the code of a model card."""

import os
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scenes import segmenter

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.cli import main
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules import Segment

MEAN, STD = [0.3, 0.4, 0.6], [0.2, 0.1, 0.3]
CONFIG = ViTConfig(image_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2)
NAMES = ["daisy", "rose", "tulip"]


def save_classifier(path: Path, **info: Any) -> ViT:
    """Writes a classifier of three classes whose logits are a few units apart."""
    torch.manual_seed(0)
    vit = ViT(CONFIG, num_classes=3).eval()
    torch.nn.init.normal_(vit.get_parameter("head.weight"))
    save_backbone(path, vit, **{"pixel_mean": MEAN, "pixel_std": STD, "class_names": NAMES, **info})
    return vit


def save_segmenter(path: Path, short_side: int | None = None) -> Segment:
    """Writes a segmenter of windows of 32 px for three classes, which are about equally frequent in its maps."""
    module = segmenter()
    module.build(3)
    module.set_statistics(MEAN, STD)
    module.short_side = short_side
    ExportWeights(str(path)).export(module.eval(), step=0)
    return module


def run(weights: Path, format_name: str, out: Path, *options: str) -> int:
    return main(["export", "--weights", str(weights), "--format", format_name, "--out", str(out), *options])


def photo(path: Path, height: int = 80, width: int = 101) -> np.ndarray:
    """Writes a smooth image with a bright frame of 4 px without a loss; returns its pixels."""
    ramp = np.add.outer(np.arange(height), np.arange(width))
    pixels = np.stack([ramp, 180 - ramp, 90 + 60 * np.sin(ramp / 9)], -1).astype(np.uint8)
    pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:] = 255, 255, 255, 255
    Image.fromarray(pixels).save(path, "PNG")
    return pixels


def run_card(folder: Path, work: Path) -> dict[str, Any]:
    """Runs the code in a folder's README.md, in a folder with a ``photo.jpg``; returns its variables."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    variables: dict[str, Any] = {}
    with chdir(work):
        exec(compile(code, os.fspath(folder / "README.md"), "exec"), variables)
    return variables
