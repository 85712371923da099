"""Finds the images that COCO's annotation files name."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file
from lit_splitmask.images.decode import IMAGE_EXTENSIONS
from lit_splitmask.images.folder_names import SPLITS, means_images, same_name, split_of
from lit_splitmask.images.tree import IGNORED_FOLDERS, Tree

Rank = tuple[int, ...]
"""How likely it is that names are relative to a folder; the smallest is the likeliest."""

_SAME_AS_IMAGES = ("default", "data")  # folders of CVAT
_SHOWN_FOLDERS = 6


@dataclass(frozen=True)
class NamedFile:
    """An annotation file and the names of its images.

    Attributes:
        path: The annotation file.
        names: Names of its images, all different.
    """

    path: Path
    names: Sequence[str]


def resolve_images(root: Path, files: Mapping[str, NamedFile], tree: Tree) -> dict[str, list[str]]:
    """Where the images of each split are, relative to the root.

    Names may be relative to the annotation file, the split's folder, ``images/`` or the root, or to any folder of no other split
    if their split has none of its own; with backslashes; absolute, also from another machine. Whole names are looked for first.
    Names that are left over may lose their leading folders, or be in another split's folder if their own split has none, but
    they never get a file that a whole name has.

    Args:
        root: The folder.
        files: The annotation file of each split.
        tree: The files of the folder.

    Raises:
        UserError: Images are missing, a name fits several files, or two names of a file fit the same one.
    """
    present = _Present(tree)
    located = _locate(present, files)
    complete = {}
    for split, named in files.items():
        missing = [name for name, file in zip(named.names, located[split], strict=True) if file is None]
        if missing:
            raise UserError(_missing(root, named, missing, _Finder(present, split, named.path)))
        complete[split] = [file for file in located[split] if file is not None]
        twice = next((file for file, count in Counter(complete[split]).items() if count > 1), None)
        if twice is not None:
            raise UserError(f"{named.path} names the image {twice} twice: merge its entries and their annotations.")
    return complete


def locate_images(files: Mapping[str, NamedFile], tree: Tree) -> dict[str, list[str | None]]:
    """As :func:`resolve_images`, with None for images that are missing."""
    return _locate(_Present(tree), files)


def _locate(present: "_Present", files: Mapping[str, NamedFile]) -> dict[str, list[str | None]]:
    finders = {split: _Finder(present, split, named.path) for split, named in files.items()}
    found = {split: [finders[split].whole(name) for name in named.names] for split, named in files.items()}
    claimed = {file for of_split in found.values() for file in of_split if file is not None}
    names_of: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for split, named in files.items():
        for index, name in enumerate(named.names):
            if found[split][index] is None:
                file = finders[split].shortened(name)
                if file is not None and file not in claimed:
                    found[split][index] = file
                    names_of[file].add(parts_of(name))
    unclear = {file for file, names in names_of.items() if len(names) > 1}
    return {split: [None if file in unclear else file for file in of_split] for split, of_split in found.items()}


def _missing(root: Path, named: NamedFile, missing: Sequence[str], finder: "_Finder") -> str:
    listed = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    likely = [folder or "." for folder in finder.likely]
    folders = ", ".join(likely[:_SHOWN_FOLDERS]) + (", …" if len(likely) > _SHOWN_FOLDERS else "")
    other = finder.elsewhere(missing[0])
    hint = f" {other} has the name of the first, but its folder is not that of this split." if other else ""
    return (
        f"{len(missing):,} of the {len(named.names):,} images that {named.path} names are missing: {listed}. They were looked "
        f"for in {folders} of {root}.{hint} Put them there, or remove them from the annotation file."
    )


def parts_of(name: str) -> tuple[str, ...]:
    """The folders and the file of a name, without a drive and without ``.`` and ``..``."""
    plain = re.sub(r"^[A-Za-z]:", "", same_name(name).replace("\\", "/"))
    return tuple(part for part in plain.split("/") if part not in ("", ".", ".."))


class _Present:
    """The images that are in a folder.

    Args:
        tree: The files of the folder.

    Attributes:
        root: The folder.
        by_name: Paths of the images by file name.
        folders: All folders that images are in, at any depth; "" for the root.
    """

    def __init__(self, tree: Tree) -> None:
        self.root = tree.root
        self.by_name: dict[str, list[str]] = defaultdict(list)
        self.folders = {""}
        for file in tree.images:
            folder, _, name = file.rpartition("/")
            self.by_name[same_name(name)].append(file)
            while folder not in self.folders:
                self.folders.add(folder)
                folder = folder.rpartition("/")[0]

    @cached_property
    def with_other_files(self) -> list[str]:
        """The folders, and those at the top that hold no images by their extension."""
        tops = [entry.name for entry in self.root.iterdir() if entry.is_dir() and entry.name not in IGNORED_FOLDERS]
        return sorted(self.folders | set(tops))


class _Finder:
    """Finds the images of one annotation file.

    Args:
        present: The images that are in the folder.
        split: The split of the annotation file.
        path: The annotation file.

    Attributes:
        likely: Folders in which names are looked for, the likeliest first.
    """

    def __init__(self, present: _Present, split: str, path: Path) -> None:
        self.present, self.split, self.path = present, split, path
        root = present.root
        self.prefixes = tuple(f"{folder.as_posix()}/" for folder in (root.absolute(), root.resolve()))
        self.beside = path.parent.relative_to(root).as_posix() if path.is_relative_to(root) else None
        self.has_own_folder = any(folder and self._is_own(folder) for folder in present.folders)
        ranks = {folder: rank for folder in present.folders if (rank := self._rank(folder)) is not None}
        self.likely = sorted(ranks, key=lambda folder: (ranks[folder], folder))

    def whole(self, name: str) -> str | None:
        """The file of a whole name; None if there is none.

        Raises:
            UserError: Several files are as likely.
        """
        plain = name.replace("\\", "/")
        for prefix in self.prefixes:
            below = plain.removeprefix(prefix)
            if below != plain and is_file(self.present.root / below):
                return below
        return self._likeliest(name, parts_of(name)) or self._of_other_extension(parts_of(name))

    def shortened(self, name: str) -> str | None:
        """The file of a name without leading folders, or in another split's folder if this split has none; None without any.

        Raises:
            UserError: Several files are as likely.
        """
        parts = parts_of(name)
        for others in (False,) if self.has_own_folder else (False, True):
            for start in range(len(parts)):
                file = self._likeliest(name, parts[start:], others=others)
                if file is not None:
                    return file
        return None

    def elsewhere(self, name: str) -> str | None:
        """A file of the same name in a folder that is not looked into; None if there is none."""
        files = self.present.by_name.get(parts_of(name)[-1], []) if parts_of(name) else []
        return next((file for file in files if self._rank(file.rpartition("/")[0]) is None), None)

    def _likeliest(self, name: str, parts: Sequence[str], *, others: bool = False) -> str | None:
        tail = "/".join(parts)
        ranked: list[tuple[Rank, str]] = []
        for file in self.present.by_name.get(parts[-1], []) if parts else []:
            normal = same_name(file)
            if normal == tail or normal.endswith(f"/{tail}"):
                rank = self._rank(normal[: len(normal) - len(tail)].rstrip("/"), others=others)
                if rank is not None:
                    ranked.append((rank, file))
        ranked.sort()
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            raise UserError(
                f"The name {name} in {self.path} fits several images: {', '.join(file for _, file in ranked[:3])}. Give them "
                "different names, or write their folders into the annotation file."
            )
        return ranked[0][1] if ranked else None

    def _rank(self, folder: str, *, others: bool = False) -> Rank | None:
        """How likely names are relative to a folder; None if they are not.

        Those of another split are looked into only with ``others``, and those of no split and not of images only if the split has
        no folder of its own.
        """
        if folder == self.beside:
            return (0,)
        strange = _num_strange(folder)
        if self._is_own(folder):
            return (1, strange)
        if _roles(folder):
            return (3, strange) if others else None
        return None if strange and self.has_own_folder else (2, strange)

    def _is_own(self, folder: str) -> bool:
        """Whether a folder is that of the split, or that of the annotation file."""
        return folder == self.beside or self.split in _roles(folder)

    def _of_other_extension(self, parts: Sequence[str]) -> str | None:
        """A file whose extension is none of an image's: what an annotation file names is one, and its content counts."""
        if not parts or PurePosixPath(parts[-1]).suffix.lower() in IMAGE_EXTENSIONS:
            return None
        tail = "/".join(parts)
        ranked = []
        for folder in self.present.with_other_files:
            rank = self._rank(folder)
            file = f"{folder}/{tail}" if folder else tail
            if rank is not None and is_file(self.present.root / file):
                ranked.append((rank, file))
        return min(ranked)[1] if ranked else None


@cache
def _roles(folder: str) -> frozenset[str]:
    """The splits that a folder's path names."""
    return frozenset(role for part in folder.split("/") if (role := split_of(part)) in SPLITS)


@cache
def _num_strange(folder: str) -> int:
    """How many folders of a path name neither a split nor images."""
    parts = folder.split("/") if folder else []
    return sum(split_of(part) is None and not means_images(part) and part not in _SAME_AS_IMAGES for part in parts)
