"""What a folder is: one place decides, from all the evidence, and says why."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from lit_splitmask.annotations.coco_files import find_annotations
from lit_splitmask.annotations.pairs import find_pairs, looks_like_segmentation
from lit_splitmask.datamodules.markers import check_not_published
from lit_splitmask.errors import UserError
from lit_splitmask.files import local_folder
from lit_splitmask.images.layout import LabelsMode, LayoutName, understand
from lit_splitmask.images.tree import Tree

TaskName = Literal["classify", "segment", "detect"]

LAYOUTS = ("auto", "splits", "classes", "subfolders", "flat", "segmentation", "coco")
"""Values of ``--layout``."""

LEAST_LABELLED = 0.5
"""Share of the images that must have a label file of the same name, for the folder to count as annotated in that format."""

WAYS_TO_LABEL = (
    "put each class's images into its own folder (DIR/train/<class>/… or DIR/<class>/…), or list them in a CSV file "
    "(--data Manifest --data.manifest FILE)"
)

_LOOKED_INTO = 20  # label files of a folder


@dataclass(frozen=True)
class Reading:
    """What a folder is.

    Attributes:
        layout: One of :data:`LAYOUTS`, or the name of a format that is not read.
        task: What ``finetune`` trains for on it; None where it cannot.
        meaning: How it is read, such as "classes in train and test".
        because: The evidence.
        way: What to do, where there is no task.
    """

    layout: str
    task: TaskName | None
    meaning: str
    because: str
    way: str = ""

    def __str__(self) -> str:
        return f"read as: {self.meaning}, because {self.because}"


def recognise(root: str | Path, mode: LabelsMode = "auto", layout: str = "auto", tree: Tree | None = None) -> Reading:
    """Finds out what a folder is.

    Args:
        root: The folder.
        mode: See :func:`~lit_splitmask.images.layout.understand`.
        layout: What the user says that it is.
        tree: The files of the folder, if they are known.

    Raises:
        UserError: There is no such folder or no image in it, or two readings are about equally likely.
    """
    root = local_folder(str(root))
    tree = tree or Tree.read(root)
    if layout not in LAYOUTS:
        raise UserError(f"There is no layout {layout!r}: --layout is one of {', '.join(LAYOUTS)}.")
    if layout == "auto":
        check_not_published(root, tree)
    if layout in ("auto", "coco"):
        annotations = find_annotations(root, tree=tree)
        if annotations or layout == "coco":
            named = ", ".join(f"{path.relative_to(root).as_posix()} for {split}" for split, path in annotations.items())
            return Reading(
                "coco", "detect", "images with boxes or masks in COCO's format", f"there is {named or 'no file'}"
            )
    if layout in ("auto", "segmentation") and (layout == "segmentation" or looks_like_segmentation(root, tree)):
        return _segmentation(root, tree)
    foreign = _foreign(root, tree) if layout == "auto" and mode != "none" else None
    if foreign is not None:
        return foreign
    found = understand(root, mode, _image_layout(layout), tree)
    meaning = f"{len(found.classes):,} classes" if found.classes else "images without labels"
    splits = [split for split in ("train", "val", "test") if split in found.given]
    inside = f" in {_joined(splits)}" if splits else ""
    name = layout if layout != "auto" else _name_of(found.given, found.classes, found.class_level)
    if not found.classes:
        return Reading(name, None, f"{meaning}{inside}", found.because, WAYS_TO_LABEL)
    return Reading(name, "classify", f"{meaning}{inside}", found.because)


def _image_layout(layout: str) -> LayoutName:
    for name in ("splits", "classes", "subfolders", "flat"):
        if name == layout:
            return name
    return "auto"


def _name_of(given: object, classes: object, class_level: int) -> str:
    if given:
        return "splits"
    if not classes:
        return "flat"
    return "subfolders" if class_level else "classes"


def _joined(names: Sequence[str]) -> str:
    """``train``, ``train and val``, or ``train, val and test``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _segmentation(root: Path, tree: Tree) -> Reading:
    pairs = find_pairs(root, tree)
    if not pairs.maps:
        raise UserError(f"--layout segmentation needs label maps in {root}, and none were found.")
    image, label_map = next(iter(pairs.maps.items()))
    splits = _joined([name for name in ("train", "val", "test") if name in pairs.splits])
    return Reading(
        "segmentation",
        "segment",
        f"images with label maps in {splits}",
        f"{len(pairs.maps):,} images have a map of the same name, such as {image} and {label_map}",
    )


def _foreign(root: Path, tree: Tree) -> Reading | None:
    """Annotations in a format that is not read, with the way to convert them; None if there are none."""
    if not tree.label_files:
        return None
    stems = {PurePosixPath(file).stem for file in tree.images}
    by_extension: dict[str, list[str]] = {}
    for file in tree.label_files:
        path = PurePosixPath(file)
        if path.stem in stems:
            by_extension.setdefault(path.suffix.lower(), []).append(file)
    for extension, (name, test, way) in _FORMATS.items():
        files = by_extension.get(extension, [])
        if files and len(files) >= LEAST_LABELLED * len(tree.images) and _agree(root, files, test):
            shares = f"{len(files):,} of the {len(tree.images):,} images"
            because = f"{shares} have a {extension} file of the same name, such as {files[0]}"
            return Reading(
                name, None, f"images annotated in the format of {name}, which is not supported", because, way
            )
    return None


def _agree(root: Path, files: list[str], test: Callable[[str], bool]) -> bool:
    """Whether most of a few files are in a format."""
    some = files[:: max(1, len(files) // _LOOKED_INTO)][:_LOOKED_INTO]
    answers = Counter(_passes(root / file, test) for file in some)
    return answers[True] > answers[False]


def _passes(path: Path, test: Callable[[str], bool]) -> bool:
    try:
        return test(path.read_text(encoding="utf-8", errors="replace")[:100_000])
    except OSError:
        return False


def _is_yolo(text: str) -> bool:
    """Lines of a class number and at least four numbers."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    try:
        return all(
            len(line) >= 5 and int(line[0]) >= 0 and all(-1 <= float(number) <= 2 for number in line[1:])
            for line in lines
        )
    except ValueError:
        return False


def _is_voc(text: str) -> bool:
    return "<annotation" in text and ("<bndbox" in text or "<filename" in text)


def _is_labelme(text: str) -> bool:
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        return '"shapes"' in text and '"imagePath"' in text
    return isinstance(stored, dict) and "shapes" in stored


_SUPERVISION = (
    "convert them to COCO's format first, for example with the package supervision: "
    "`sv.DetectionDataset.{load}(…).as_coco(annotations_path='annotations/instances_train.json')`, for each split, and put the "
    "images into train/ and val/"
)
_FORMATS: dict[str, tuple[str, Callable[[str], bool], str]] = {
    ".txt": ("YOLO", _is_yolo, _SUPERVISION.format(load="from_yolo")),
    ".xml": ("Pascal VOC", _is_voc, _SUPERVISION.format(load="from_pascal_voc")),
    ".json": (
        "labelme",
        _is_labelme,
        "convert them to COCO's format first, for example with labelme's own examples/instance_segmentation/labelme2coco.py",
    ),
}
"""By extension: the name of the format, whether a file's text is in it, and how to convert it."""
