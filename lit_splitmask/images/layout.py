"""How a folder of images for classification or pre-training is laid out: splits, classes, or images only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lit_splitmask.errors import UserError
from lit_splitmask.images.evidence import Content, Evidence, LabelsMode, LayoutName, some
from lit_splitmask.images.folder_names import SPLITS, same_name, split_of
from lit_splitmask.images.tree import Tree, check_has_images

__all__ = ["LabelsMode", "Layout", "LayoutName", "understand"]

_LABELS_NONE = "--data.splits.labels=none"


@dataclass(frozen=True)
class Layout:
    """A folder, understood.

    Attributes:
        description: What was understood, in one line.
        because: The evidence for it.
        files: All images that belong to it, as sorted POSIX paths relative to the root.
        classes: Sorted class names; empty without labels.
        class_level: Which part of a relative path names the class.
        given: The images of each split that has a folder of its own; empty if none has.
        left_out: Images that are not used, by where they are: "in DIR, which …" -> files.
    """

    description: str
    because: str
    files: list[str]
    classes: list[str]
    class_level: int
    given: dict[str, list[str]]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def labels(self) -> dict[str, int]:
        """The label of every image, -1 without labels."""
        if not self.classes:
            return dict.fromkeys(self.files, -1)
        number = {name: label for label, name in enumerate(self.classes)}
        return {file: number[same_name(file.split("/")[self.class_level])] for file in self.files}


def understand(root: Path, mode: LabelsMode = "auto", layout: LayoutName = "auto", tree: Tree | None = None) -> Layout:
    """Finds out how a folder is laid out.

    Args:
        root: The folder.
        mode: ``folders`` insists on class folders, ``none`` ignores them, ``auto`` looks.
        layout: ``splits`` for split folders, ``classes`` for class folders, ``subfolders`` for classes named by the folders one
            level down, ``flat`` for images without labels; ``auto`` looks, and stops where two readings are about equally likely.
        tree: The files of the folder, if they are known.

    Raises:
        UserError: There is no such folder or no image in it, class folders do not fit together, or the layout is ambiguous.
    """
    tree = tree or Tree.read(root)
    check_has_images(tree)
    evidence = Evidence(root, tree.images)
    chosen = evidence.choose(mode) if layout == "auto" else layout
    if chosen == "splits":
        return _as_splits(evidence, mode)
    if chosen == "classes":
        return _as_classes(evidence, mode, aside=set(evidence.aside) if layout == "auto" else set())
    if chosen == "subfolders":
        return _as_subfolders(evidence)
    return _as_flat(evidence, mode, is_given=layout == "flat")


def _as_flat(evidence: Evidence, mode: LabelsMode, *, is_given: bool) -> Layout:
    """Images without labels."""
    folders = evidence.top.folders
    if is_given:
        why = "--layout flat says so"
    elif mode == "none":
        why = "labels are not asked for"
    elif not folders:
        why = "no image is in a subfolder"
    elif len(folders) == 1:
        why = f"there is one folder with images ({next(iter(folders))})"
    elif evidence.names_say_nothing:
        why = f"its folders are named after dates, by a camera or as numbered parts ({some(folders)})"
    else:
        why = f"there is one folder beside {some(evidence.aside)}"
    return Layout(f"{len(evidence.files):,} images without labels", why, evidence.files, [], 0, {})


def _as_classes(evidence: Evidence, mode: LabelsMode, aside: set[str]) -> Layout:
    """A folder for each class.

    Raises:
        UserError: There are fewer than two of them.
    """
    folders = {name: files for name, files in evidence.top.folders.items() if name not in aside}
    classes = sorted({same_name(name) for name in folders})
    loose = evidence.loose
    if len(classes) < 2 or (mode == "folders" and loose):
        raise UserError(
            f"Class folders need at least two class folders in {evidence.root} and every image in one of them, but there are "
            f"{len(classes)} folder(s) with images and {len(loose)} image(s) outside. Sort the images into one folder per class, "
            f"or pass {_LABELS_NONE}."
        )
    inside = evidence.files if not aside and not loose else sorted(file for files in folders.values() for file in files)
    description = f"{len(classes)} class folders, {len(inside):,} images"
    left_out = _left_out(evidence, aside)
    if loose:
        left_out["beside the class folders"] = loose
    return Layout(description, f"its folders are {some(folders)}", inside, classes, 0, {}, left_out)


def _as_subfolders(evidence: Evidence) -> Layout:
    """Classes named by the folders one level down.

    Raises:
        UserError: There are fewer than two of them.
    """
    root = evidence.root
    inside = [file for file in evidence.files if file.count("/") >= 2]
    outside = [file for file in evidence.files if file.count("/") < 2]
    classes = sorted({same_name(file.split("/")[1]) for file in inside})
    if len(classes) < 2:
        raise UserError(
            f"--layout subfolders needs at least two classes one level down in {root} ({root}/*/CLASS/*.jpg), but there are "
            f"{len(classes)}."
        )
    left_out = {"outside the class folders": outside} if outside else {}
    description = f"{len(classes)} classes in {len(evidence.top.folders)} folders, {len(inside):,} images"
    return Layout(description, "--layout subfolders says so", inside, classes, 1, {}, left_out)


def _as_splits(evidence: Evidence, mode: LabelsMode) -> Layout:
    """A folder for each split, with class folders inside or without.

    Raises:
        UserError: Two folders are for one split, train is missing, or the splits' classes differ.
    """
    root, named = evidence.root, evidence.splits
    twice = [name for name, role in named.items() if list(named.values()).count(role) > 1]
    if twice:
        raise UserError(
            f"{root} holds two folders for the same split: {', '.join(sorted(twice))}. Keep one of them, or pass the folder that "
            "holds the right ones."
        )
    if "train" not in named.values():
        raise UserError(
            f"--layout splits needs a folder for train in {root}, but its folders are {some(evidence.top.folders)}."
        )
    level = 1 if mode == "none" else _class_level(evidence)
    content: dict[str, Content] = {
        role: evidence.inside[name] if level == 1 else Content.of(evidence.top.folders[name], level)
        for name, role in sorted(named.items(), key=lambda item: item[1])
    }
    left_out = _left_out(evidence, evidence.top.folders.keys() - named.keys())
    if evidence.loose:
        left_out["beside the split folders"] = evidence.loose
    classes = [] if mode == "none" else _classes_in(root, mode, content)
    given: dict[str, list[str]] = {
        role: _in_class_folders(role, found, left_out) if classes else found.files for role, found in content.items()
    }
    counts = ", ".join(f"{split} {len(given[split]):,}" for split in SPLITS if split in given)
    labelled = f"{len(classes)} class folders in each" if classes else "without labels"
    num_outside = sum(map(len, left_out.values()))
    ignored = f"; {num_outside:,} images outside these folders ignored" if num_outside else ""
    return Layout(
        description=f"split folders ({counts}) {labelled}{ignored}",
        because=f"its folders are named after splits ({', '.join(sorted(named))})",
        files=sorted(file for files in given.values() for file in files),
        classes=classes,
        class_level=level,
        given=dict(given),
        left_out=left_out,
    )


def _class_level(evidence: Evidence) -> int:
    """At which level the class folders of split folders are: 1, or 2 where each split folder holds one folder that holds them.

    Raises:
        UserError: Only some of the split folders do.
    """
    wrapped = {}
    for name, role in evidence.splits.items():
        content = evidence.inside[name]
        only = content.only_folder if not content.num_loose else None
        wrapped[name] = only is not None and (
            only == name or split_of(only) == role or len(Content.of(content.folders[only], 2).folders) > 1
        )
    if any(wrapped.values()) and not all(wrapped.values()):
        name = next(name for name, is_wrapped in wrapped.items() if is_wrapped)
        inner = evidence.inside[name].only_folder
        raise UserError(
            f"{evidence.root / name} holds a single folder, {inner}, with its images or class folders, but the other splits do "
            f"not: move the content of {evidence.root / name / str(inner)} up into {evidence.root / name}."
        )
    return 2 if all(wrapped.values()) else 1


def _left_out(evidence: Evidence, names: set[str]) -> dict[str, list[str]]:
    """The images of folders that are not used, by where they are."""
    left_out = {}
    for name in sorted(names):
        path, role = evidence.root / name, evidence.roles.get(name)
        if role == "unlabelled":
            where = f"in {name} (to pre-train on them too, pass --data.pool '[{path}]')"
        elif role == "predict":
            where = f"in {name} (to pre-train on them too, pass --data.pool '[{path}]'; to predict them, --data.root {path})"
        else:
            where = f"in {name}, which is neither train nor val nor test"
        left_out[where] = evidence.top.folders[name]
    return left_out


def _in_class_folders(split: str, content: Content, left_out: dict[str, list[str]]) -> list[str]:
    """The images of a split that are in its class folders; the others are added to ``left_out``."""
    if not content.num_loose:
        return content.files
    inside = {file for files in content.folders.values() for file in files}
    left_out[f"in {split}, but in none of its class folders"] = [file for file in content.files if file not in inside]
    return sorted(inside)


def _classes_in(root: Path, mode: LabelsMode, content: Mapping[str, Content]) -> list[str]:
    """The sorted names of train's class folders, after checking that the other splits fit; [] without labels."""
    classes = {split: {same_name(name) for name in found.folders} for split, found in content.items()}
    train = content["train"]
    if mode == "folders" and (train.num_loose or len(classes["train"]) < 2):
        raise UserError(
            f"labels=folders needs at least two class folders in train of {root} and every image in one of them, but there are "
            f"{len(classes['train'])} and {train.num_loose} image(s) outside. Pass {_LABELS_NONE}, or sort them."
        )
    if len(classes["train"]) < 2:
        _check_no_classes(root, content)
        return []
    for split, found in content.items():
        if found.num_loose and not found.holds_few_loose:
            raise UserError(
                f"train of {root} has class folders ({some(classes['train'])}), but {found.num_loose} of the {len(found.files)} "
                f"image(s) of {split} are outside of any. Sort them into the class folders of train, move them away, or pass "
                f"{_LABELS_NONE}."
            )
        unknown = sorted(classes[split] - classes["train"])
        if unknown:
            raise UserError(
                f"{split} of {root} has classes that train lacks: {', '.join(unknown)}. train has: "
                f"{', '.join(sorted(classes['train']))}. {_hint(unknown, classes['train'])}Rename or move these folders, or pass "
                f"{_LABELS_NONE}."
            )
    return sorted(classes["train"])


def _check_no_classes(root: Path, content: Mapping[str, Content]) -> None:
    """Checks that no split has class folders if train has none.

    Raises:
        UserError: One has.
    """
    for split, found in content.items():
        if found.holds_folders_only:
            raise UserError(
                f"{split} of {root} has class folders ({some(found.folders)}), but train has fewer than two: sort its images "
                f"into the same class folders, or pass {_LABELS_NONE}."
            )


def _hint(unknown: list[str], known: set[str]) -> str:
    """Names that differ only in case and spaces."""
    plain = {"".join(name.casefold().split()): name for name in known}
    alike = [
        (name, plain["".join(name.casefold().split())]) for name in unknown if "".join(name.casefold().split()) in plain
    ]
    return "".join(f"{name} differs from {other} in capitals or spaces only. " for name, other in alike[:3])
