"""Which layouts are read, for which task, and what is said of others: the table of docs/guide/folders.md.

``python tests/test_layouts.py`` writes the table anew.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.datamodules.recognise import LAYOUTS, recognise
from lit_splitmask.errors import UserError

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "folders.md"
START, END = "<!-- layouts: written by tests/test_layouts.py -->\n", "<!-- end of layouts -->\n"
STEMS = ("a", "b", "c")


def image(path: Path, *, seed: int = 0, is_map: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(abs(hash((path.name, seed))) % 2**32)
    shape = (12, 12) if is_map else (12, 12, 3)
    Image.fromarray(generator.integers(0, 2 if is_map else 256, shape, dtype=np.uint8)).save(path)


def images(root: Path, *folders: str, extension: str = "jpg") -> None:
    for seed, folder in enumerate(folders):
        for stem in STEMS:
            image(root / folder / f"{stem}.{extension}", seed=seed)


def maps(root: Path, *folders: str) -> None:
    for folder in folders:
        for stem in STEMS:
            image(root / folder / f"{stem}.png", is_map=True)


def text(root: Path, folder: str, extension: str, content: str) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for stem in STEMS:
        (root / folder / f"{stem}.{extension}").write_text(content)


def coco(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"id": i, "file_name": f"{stem}.jpg", "width": 12, "height": 12} for i, stem in enumerate(STEMS)]
    box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    box["segmentation"] = [[1, 1, 6, 1, 6, 6, 1, 6]]
    path.write_text(json.dumps({"images": entries, "annotations": [box], "categories": [{"id": 1, "name": "part"}]}))


@dataclass(frozen=True)
class Case:
    """A layout.

    Attributes:
        shown: What the folder looks like.
        write: Writes one.
        layout: What it is read as; empty where the program stops.
        task: What ``finetune`` trains for.
        says: A part of what is said where the folder cannot be fine-tuned on.
    """

    shown: str
    write: Callable[[Path], object]
    layout: str
    task: str | None = None
    says: str = ""


def classes(*folders: str) -> Callable[[Path], None]:
    return lambda root: images(root, *folders)


def pairs(of_images: str, of_maps: str, *others: str) -> Callable[[Path], None]:
    return lambda root: (images(root, of_images), maps(root, of_maps), images(root, *others), None)[-1]


def boxes(*paths: str, folders: tuple[str, ...]) -> Callable[[Path], None]:
    return lambda root: (images(root, *folders), [coco(root / path) for path in paths], None)[-1]


VOC = "<annotation><filename>a.jpg</filename><object><bndbox/></object></annotation>"
CASES = [
    Case("`CLASS/*.jpg`", classes("cat", "dog"), "classes", "classify"),
    Case(
        "`train/CLASS/*.jpg`, `val/…`, `test/…`",
        classes("train/cat", "train/dog", "val/cat", "test/dog"),
        "splits",
        "classify",
    ),
    Case(
        "`Training/CLASS/*.jpg`, `Testing/…`; `train_set`, `images-test`, `valid`, `dev`, …",
        classes("Training/cat", "Training/dog", "Testing/cat"),
        "splits",
        "classify",
    ),
    Case(
        "`seg_train/seg_train/CLASS/*.jpg`, `seg_test/seg_test/…`",
        classes("seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat"),
        "splits",
        "classify",
    ),
    Case(
        "`2026-05-01/*.jpg`, `100CANON/*.jpg`, …",
        classes("2026-05-01", "2026-05-02", "100CANON"),
        "flat",
        None,
        "CSV file",
    ),
    Case("`train/*.jpg`, `test/*.jpg`", classes("train", "test"), "splits", None, "CSV file"),
    Case(
        "`SITE/CLASS/*.jpg`, the same classes in each",
        classes("north/cat", "north/dog", "south/cat", "south/dog"),
        "",
        None,
        "--layout subfolders",
    ),
    Case(
        "`download/train/CLASS/*.jpg` (one folder too high)",
        classes("parts/train/cat", "parts/train/dog", "parts/test/cat"),
        "",
        None,
        "pass",
    ),
    Case("`images/*.jpg`, `masks/*.png` of the same names", pairs("images", "masks"), "segmentation", "segment"),
    Case(
        "`images/train/*.jpg`, `annotations/train/*.png` (ADE20K)",
        pairs("images/train", "annotations/train"),
        "segmentation",
        "segment",
    ),
    Case(
        "`train/images/*.jpg`, `train/masks/*.png`, `val/…`",
        pairs("train/images", "train/masks"),
        "segmentation",
        "segment",
    ),
    Case(
        "`JPEGImages/*.jpg`, `SegmentationClass/*.png` (VOC, CVAT)",
        pairs("JPEGImages", "SegmentationClass"),
        "segmentation",
        "segment",
    ),
    Case(
        "`train/*.png`, `train_labels/*_L.png`, `class_dict.csv` (CamVid)",
        lambda root: (
            images(root, "train", extension="png"),
            [image(root / "train_labels" / f"{stem}_L.png", is_map=True) for stem in STEMS],
        ),
        "segmentation",
        "segment",
    ),
    Case(
        "`train/*.jpg`, `val/*.jpg`, `annotations/instances_train.json`, `…_val.json` (COCO)",
        boxes("annotations/instances_train.json", folders=("train",)),
        "coco",
        "detect",
    ),
    Case(
        "`train/_annotations.coco.json`, `valid/…`, `test/…` (Roboflow)",
        boxes("train/_annotations.coco.json", "valid/_annotations.coco.json", folders=("train", "valid")),
        "coco",
        "detect",
    ),
    Case(
        "`images/*.jpg`, `annotations/instances_default.json` (CVAT)",
        boxes("annotations/instances_default.json", folders=("images",)),
        "coco",
        "detect",
    ),
    Case("`images/*.jpg`, `labels.json` in COCO's format", boxes("labels.json", folders=("images",)), "coco", "detect"),
    Case(
        "`images/*.jpg`, `labels/*.txt` (YOLO)",
        lambda root: (images(root, "images"), text(root, "labels", "txt", "0 0.5 0.5 0.2 0.2\n")),
        "YOLO",
        None,
        "supervision",
    ),
    Case(
        "`*.jpg`, `*.xml` (Pascal VOC's boxes)",
        lambda root: (images(root, "."), text(root, ".", "xml", VOC)),
        "Pascal VOC",
        None,
        "supervision",
    ),
    Case(
        "`*.jpg`, `*.json` (labelme)",
        lambda root: (images(root, "."), text(root, ".", "json", '{"shapes": [], "imagePath": ""}')),
        "labelme",
        None,
        "labelme2coco",
    ),
    Case(
        "`cars_train/`, `cars_test/`, `devkit/` (Stanford Cars), and the other published sets",
        classes("cars_train", "cars_test"),
        "",
        None,
        "splitmask_cars",
    ),
]


def outcome(case: Case, root: Path) -> tuple[str, str | None, str]:
    """The layout that a folder is read as, the task, and what is said."""
    case.write(root)
    try:
        reading = recognise(root)
    except UserError as error:
        return "", None, str(error).replace(str(root), "DIR")
    said = str(reading) if reading.task else f"{reading}. To train on it: {reading.way}"
    return reading.layout, reading.task, said.replace(str(root), "DIR")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.shown)
def test_a_layout_is_read_or_refused_with_the_way(case: Case, tmp_path: Path) -> None:
    layout, task, said = outcome(case, tmp_path)
    assert (layout, task) == (case.layout, case.task), said
    assert case.says in said


def row(case: Case, root: Path) -> str:
    layout, task, said = outcome(case, root)
    name = f"`{layout}`" if layout in LAYOUTS else (layout or "nothing: it stops")
    return f"| {case.shown} | {name} | {task or '–'} | {' '.join(said.split()).replace('|', '/')} |\n"


def table() -> str:
    """The table of all layouts."""
    head = "| folder | read as | `finetune` trains to | what is said |\n|---|---|---|---|\n"
    with tempfile.TemporaryDirectory() as directory:
        return head + "".join(row(case, Path(directory) / str(number)) for number, case in enumerate(CASES))


def test_the_table_in_the_docs_is_what_the_program_says() -> None:
    assert PAGE.read_text().partition(START)[2].partition(END)[0] == table()


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(before + START + table() + END + rest.partition(END)[2])
