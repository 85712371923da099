"""What a plan is for: a folder or a list of images, how it is read, and the images to pre-train on."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lit_splitmask.annotations.csv_table import read_table
from lit_splitmask.annotations.pairs import folders_of_images
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.tasks.registry import root_for_finetuning
from lit_splitmask.datamodules.manifest import Manifest
from lit_splitmask.datamodules.recognise import LAYOUTS, Reading, recognise
from lit_splitmask.errors import UserError
from lit_splitmask.images.glance import Glance, glance
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.images.label_sets import classes_of
from lit_splitmask.images.tree import Tree

LEAST_LISTED = 0.5
"""Share of the rows of a CSV file that must name images of the folder, for the file to be pointed out."""


@dataclass(frozen=True)
class Subject:
    """What a plan is for.

    Attributes:
        images: The folder or list of images.
        options: Options of ``pretrain`` that name these images.
        reading: What the folder is read as; None if a recipe reads it.
        found: How many images there are, and their size.
        finetuning: Options of ``finetune`` for images with annotations; empty for classification.
        left_out: Files of other kinds than images, by kind, in words.
        notes: What else to know.
    """

    images: str
    options: list[str]
    reading: Reading | None
    found: Glance
    finetuning: list[str]
    left_out: list[str]
    notes: list[str]


def subject_of(request: Request, root: str | None, index_dir: str, recipe: dict[str, Any]) -> Subject:
    """Finds out what to plan for.

    Args:
        request: The command.
        root: The folder that it names.
        index_dir: The folder of the index of the splits.
        recipe: The settings of the recipe that it names; empty for none.

    Raises:
        UserError: The images cannot be used, or are annotated in a format that is not read.
    """
    if request.manifest is not None:
        return _manifest(request.manifest, root, index_dir, several=request.value("--data.splits.labels") == "several")
    assert root is not None, "the command names a folder or a manifest"
    data = recipe.get("data")
    class_path = str(data.get("class_path")) if isinstance(data, dict) else "ImageFolder"
    if class_path.rpartition(".")[2] != "ImageFolder":
        return Subject(root, ["--data.root", root], None, glance(root), [], [], [])
    return _folder(root, request.layout or "auto")


def _manifest(manifest: str, root: str | None, index_dir: str, *, several: bool) -> Subject:
    data = Manifest(manifest, root, index_dir=index_dir, splits=SplitOptions(labels="several" if several else "auto"))
    index = data.load_or_make()
    name, classes = Path(manifest).name, classes_of(index.classes)
    more = ", any number per image," if several else ""
    meaning = f"{len(classes):,} classes{more}" if index.classes else "images without labels"
    way = "" if index.classes else f"give {name} a column label, or finetune --data.target COLUMN for numbers"
    because = f"{name} lists {len(index.files) + len(index.unreadable):,} images"
    reading = Reading("manifest", "classify" if index.classes else None, f"{meaning} from a list", because, way)
    options = ["--data", "Manifest", "--data.manifest", manifest, *([] if root is None else ["--data.root", root])]
    options += ["--data.splits.labels", "several"] if several else []
    return Subject(manifest, options, reading, Glance(len(index.files), min(index.median_size)), [], [], [])


def _folder(root: str, layout: str) -> Subject:
    path = Path(root).expanduser()
    tree = Tree.read(path)
    reading = recognise(path, layout=layout, tree=tree)
    if reading.layout not in LAYOUTS:
        raise UserError(
            f"{root} is read as {reading.meaning}, because {reading.because}. To train on them, {reading.way}. To pre-train on "
            "the images alone, pass --layout flat."
        )
    images, options, finetuning, notes = root, [], [], []
    if reading.task == "segment":
        folders = folders_of_images(path, tree)
        images, finetuning = folders[0], ["--data.root", root]
        if len(folders) > 1:
            notes.append(f"Training images are in {len(folders):,} folders; this plan covers only {images}.")
    elif reading.task == "detect":
        images, finetuning = _folder_with_all(path, tree) or root, ["--data.root", root]
    elif layout != "auto":
        options = ["--layout", layout]
    elif reading.task is None:
        annotated = root_for_finetuning(root)
        finetuning = ["--data.root", annotated] if annotated != root else []
        notes += _lists(path, tree)
    return Subject(
        images, ["--data.root", images, *options], reading, glance(images), finetuning, tree.describe_left_out(), notes
    )


def _folder_with_all(root: Path, tree: Tree) -> str | None:
    """The folder at the top that holds all images; None if there is none."""
    tops = {file.partition("/")[0] for file in tree.images}
    return str(root / tops.pop()) if len(tops) == 1 and all("/" in file for file in tree.images) else None


def _lists(root: Path, tree: Tree) -> list[str]:
    """Notes about a CSV file that names the images of a folder, such as Kaggle's train.csv."""
    lists = [file for file in tree.label_files if file.lower().endswith(".csv") and file.count("/") <= 1]
    names = {PurePosixPath(file).name for file in tree.images} | {PurePosixPath(file).stem for file in tree.images}
    shares = {file: _share_listed(root / file, names) for file in lists}
    likeliest = max(shares, key=lambda file: shares[file], default=None)
    if likeliest is None or shares[likeliest] < LEAST_LISTED:
        return []
    return [
        f"{root / likeliest} lists these images, perhaps with labels: plan --data.manifest {root / likeliest} reads it."
    ]


def _share_listed(path: Path, names: set[str]) -> float:
    """The share of the rows of a CSV file that name images, in the column where it is largest."""
    try:
        table = read_table(path)
    except UserError:
        return 0.0  # not a list of images; it is only looked at for a hint
    found = (sum(PurePosixPath(cell).name in names for cell in table.cells(i)) for i in range(len(table.header)))
    return max(found, default=0) / max(1, len(table.rows))
