"""Lists that say which images of a segmentation set are for train, val and test, such as Pascal VOC's."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lit_splitmask.annotations.pair_names import stem
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines
from lit_splitmask.images.folder_names import SPLITS, Role, same_name, split_of
from lit_splitmask.images.tree import Tree

VOC = "ImageSets/Segmentation"
"""Where Pascal VOC's lists are, and those of CVAT's mask export."""

LEAST_KNOWN = 0.5
"""Share of a list's entries that must be images, for a text file to be such a list."""

_DEEPEST = 4


@dataclass(frozen=True)
class ListedSplits:
    """What the lists say.

    Attributes:
        splits: Images by split, each in one split.
        source: The lists, for messages.
        missing: Entries for which there is no image.
        unlisted: Images that no list names.
        twice: Images that two lists name; they count for test before val before train.
    """

    splits: dict[str, list[str]]
    source: str
    missing: list[str]
    unlisted: list[str]
    twice: list[str]


def listed_splits(root: Path, tree: Tree, images: Sequence[str]) -> ListedSplits | None:
    """The splits that lists beside the images name; None without a list for train.

    Args:
        root: The folder.
        tree: Its files.
        images: The images that the lists may name.

    Raises:
        UserError: Lists in several folders name the splits.
    """
    names = _Names(images)
    by_folder: dict[str, dict[Role, str]] = defaultdict(dict)
    for file in tree.label_files:
        role = split_of(stem(file)) if file.lower().endswith(".txt") and file.count("/") <= _DEEPEST else None
        if role in SPLITS and stem(file).lower() != "trainval":
            by_folder[file.rpartition("/")[0]][role] = file
    found = {}
    for folder, lists in by_folder.items():
        entries = {role: read_lines(root / file) for role, file in lists.items()}
        if names.knows(entries.get("train", [])):
            found[folder] = entries
    if not found:
        return None
    folder = _choose(root, found)
    source = " and ".join(by_folder[folder][role] for role in SPLITS if role in by_folder[folder])
    return _split(source, found[folder], names)


def _choose(root: Path, found: Mapping[str, object]) -> str:
    if len(found) == 1:
        return next(iter(found))
    voc = [folder for folder in found if folder.endswith(VOC)]
    if len(voc) == 1:
        return voc[0]
    raise UserError(
        f"{root} holds lists of splits in several folders ({', '.join(sorted(folder or '.' for folder in found))}): keep one of "
        "them."
    )


def _split(source: str, entries: Mapping[Role, list[str]], names: "_Names") -> ListedSplits:
    owner: dict[str, str] = {}
    missing, twice = [], []
    for role in reversed(SPLITS):
        for entry in entries.get(role, []):
            file = names.find(entry)
            if file is None:
                missing.append(entry)
            elif owner.setdefault(file, role) != role:
                twice.append(file)
    splits = {
        str(role): [file for file in names.files if owner.get(file) == role] for role in SPLITS if role in entries
    }
    unlisted = [file for file in names.files if file not in owner]
    return ListedSplits(splits, source, missing, unlisted, twice)


class _Names:
    """Finds images by their entries in lists: a path, a name, or a name without extension."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = sorted(files)
        self.paths = {same_name(file): file for file in files}
        self.by_name: dict[str, str] = {}
        for file in self.files:
            self.by_name.setdefault(stem(file), file)
            self.by_name.setdefault(same_name(PurePosixPath(file).name), file)

    def find(self, entry: str) -> str | None:
        """The image of a line, whose first word may be the name; None if there is none."""
        for text in (entry, *entry.split()[:1]):
            path = same_name(text.replace("\\", "/")).lstrip("./")
            name = path.rpartition("/")[2]
            for found in (self.paths.get(path), self.by_name.get(name), self.by_name.get(stem(name))):
                if found is not None:
                    return found
        return None

    def knows(self, lines: Sequence[str]) -> bool:
        """Whether most lines name images."""
        return bool(lines) and sum(self.find(line) is not None for line in lines) >= LEAST_KNOWN * len(lines)
