"""Files from elsewhere, damaged or hostile: none runs code, hangs, fills the memory, or ends in a stack trace."""

import shutil
from collections.abc import Callable
from pathlib import Path

import calls
import numpy as np
import pytest
from forked import Outcome, run_apart
from hostile_files import ANNOTATIONS, CONFIGURATIONS, IMAGES, PICKLES, RAN, TABLES, WEIGHTS, Write
from PIL import Image

Call = Callable[[Path], None]

SLOW_IMAGES = {
    "169 megapixels",
    "100 megapixels with transparency",
    "100 megapixels of 16 bits",
    "30000 x 30000 of one bit",
    "a JPEG of 20,000 scans",
}
SLOW_IMAGES |= {name for name in IMAGES if "200 MB" in name or "JPEG 2000 of 120" in name}
SLOW_NAMES = SLOW_IMAGES | {"30,000 labels of words", "30,000 labels", "10,000 columns"}
FAST = 4
"""Every fourth of the other files is in the fast part."""

KINDS: dict[str, tuple[dict[str, Write], str, tuple[Call, ...]]] = {
    "weights": (WEIGHTS, "w.safetensors", (calls.weights,)),
    "pickles": (PICKLES, "w.pt", (calls.weights, calls.encoder, calls.checkpoint)),
    "configurations": (CONFIGURATIONS, "c.yaml", (calls.recipe, calls.config)),
    "tables": (TABLES, "list.csv", (calls.manifest,)),
    "annotations": (ANNOTATIONS, "set", (calls.coco, calls.coco_predicted)),
    "images": (IMAGES, "images/bad.png", (calls.images,)),
}


def cases() -> list[object]:
    """Every file of every kind; most are marked slow."""
    found = []
    for kind, (writers, _, _) in KINDS.items():
        for number, name in enumerate(writers):
            marks = [] if number % FAST == 0 and name not in SLOW_NAMES else [pytest.mark.slow]
            found.append(pytest.param(kind, name, marks=marks, id=f"{kind}: {name}"))
    return found


def write_images(folder: Path, number: int = 4) -> None:
    """Some intact images."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        noise = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")


def outcomes(kind: str, write: Write, folder: Path) -> list[Outcome]:
    """What becomes of every way to read a file of a kind."""
    _, name, ways = KINDS[kind]
    path = folder / name
    if kind != "annotations":
        write_images(folder / "shapes")
    if kind == "images":
        write_images(path.parent)
    write(path)
    found = []
    for way in ways:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        outcome = run_apart(way, path if kind != "images" else path.parent, folder=folder)
        assert not (folder / RAN).exists(), f"{way.__name__} ran code"
        found.append(outcome)
    return found


@pytest.mark.parametrize(("kind", "name"), cases())
def test_a_hostile_file_does_no_harm(kind: str, name: str, tmp_path: Path) -> None:
    writers, _, ways = KINDS[kind]
    for way, outcome in zip(ways, outcomes(kind, writers[name], tmp_path), strict=True):
        assert outcome.is_safe, f"{way.__name__}: {outcome}"
        if kind in ("weights", "pickles") and way is not calls.checkpoint:
            assert outcome.said, f"{way.__name__} took it"
