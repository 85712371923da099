"""The files that a list means by its paths: as written, or in the ways in which such lists differ from their folders."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import IMAGE_EXTENSIONS
from lit_splitmask.images.tree import Tree

_SHOWN = 3


@dataclass(frozen=True)
class ListedFiles:
    """The files that a list names.

    Attributes:
        root: The folder that the paths start from.
        names: The path of each file that exists, relative to the root, by its path as written.
        missing: Paths for which no file was found, or no single one.
        candidates: The files that a missing path may mean.
        folders: Paths that are folders.
    """

    root: Path
    names: dict[str, str]
    missing: list[str] = field(default_factory=list)
    candidates: dict[str, list[str]] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    def describe(self) -> str | None:
        """How paths differ from the files that they mean, in one line; None if they do not."""
        differing = [(written, file) for written, file in self.names.items() if written != file]
        if not differing:
            return None
        shown = ", ".join(f"{written} -> {file}" for written, file in differing[:_SHOWN])
        where = self.root.resolve()
        return f"{len(differing):,} of the listed paths do not exist as written and were found below {where}: {shown}."

    def describe_outside(self, folder: Path) -> str | None:
        """How many files are outside a folder and the root, in one line; None if none is. A list may name any file."""
        inside = {f"{os.path.abspath(part)}{os.sep}".replace(2 * os.sep, os.sep) for part in (folder, self.root)}
        outside = [
            file
            for file in self.names.values()
            if (os.path.isabs(file) or ".." in file.split("/"))
            and not os.path.abspath(self.root / file).startswith(tuple(inside))
        ]
        if not outside:
            return None
        shown = ", ".join(outside[:_SHOWN]) + (", …" if len(outside) > _SHOWN else "")
        return f"{len(outside):,} of the {len(self.names):,} listed images are outside {folder.resolve()}: {shown}."


def find_listed(root: Path, files: Sequence[str]) -> ListedFiles:
    """Finds the files that a list means.

    A path that does not exist below the root may lack its extension or its folders, differ in Unicode's form or in case, or
    start elsewhere (on another machine, say); it must mean exactly one file. The folder is searched only if a path is missing.

    Args:
        root: The folder that the paths start from.
        files: Paths with forward slashes.

    Raises:
        UserError: A path is missing, and the root does not exist or cannot be read.
    """
    names = {file: file for file in files if os.path.isfile(root / file)}
    others = [file for file in files if file not in names]
    folders = [file for file in others if os.path.isdir(root / file)]
    absent = [file for file in others if not os.path.isdir(root / file)]
    if not absent:
        return ListedFiles(root, names, folders=folders)
    lookup = _Lookup(Tree.read(root).images)
    found = {file: lookup.find(file) for file in absent}
    still = [file for file, candidates in found.items() if not candidates]
    found |= _without_start(root, still, lookup)
    names |= {file: candidates[0] for file, candidates in found.items() if len(candidates) == 1}
    missing = [file for file in absent if file not in names]
    return ListedFiles(root, names, missing, {file: found[file] for file in missing if found[file]}, folders)


class _Lookup:
    """The images of a folder by name, with and without extension."""

    def __init__(self, images: Iterable[str]) -> None:
        self.by_name: dict[str, list[str]] = defaultdict(list)
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for image in images:
            name = _plain(image).rpartition("/")[2]
            self.by_name[name].append(image)
            self.by_stem[name.rpartition(".")[0]].append(image)

    def find(self, file: str) -> list[str]:
        """The images that a path may mean: the best match, or several that are as good."""
        plain = _plain(file).removeprefix("./")
        name = plain.rpartition("/")[2]
        if PurePosixPath(name).suffix in IMAGE_EXTENSIONS:
            found = {image: _plain(image) for image in self.by_name.get(name, ())}
        else:
            found = {image: _plain(image).rpartition(".")[0] for image in self.by_stem.get(name, ())}
        whole = [image for image, known in found.items() if known == plain]
        return _same_case(file, whole or [image for image, known in found.items() if known.endswith(f"/{plain}")])

    def other_extensions(self, file: str) -> list[str]:
        """The images that a path would mean if it had another extension."""
        path = PurePosixPath(file)
        return self.find(str(path.with_suffix(""))) if path.suffix and path.stem else []


def _plain(path: str) -> str:
    """A path by which names that differ in Unicode's form or in case only are equal."""
    return unicodedata.normalize("NFC", path).casefold()


def _same_case(file: str, images: list[str]) -> list[str]:
    """Those of several images whose names are in the same case as the path, if there are any."""
    tail = unicodedata.normalize("NFC", file).removeprefix("./")
    same = [image for image in images if tail in unicodedata.normalize("NFC", image)]
    return same or images


def _without_start(root: Path, files: Sequence[str], lookup: _Lookup) -> dict[str, list[str]]:
    """The images that paths may mean without the folders that they all start with: as many of these as find the most images.

    A path of this machine or another from its root may lose all its folders. Any other keeps at least one, unless the root ends
    with those that it loses.
    """
    parts = {file: file.split("/") for file in files}
    shared = _num_shared([path[:-1] for path in parts.values()])
    best: dict[str, list[str]] = {}
    for start in range(1, shared + 1):
        first = next(iter(parts.values()))
        ends_root = list(root.resolve().parts[-start:]) == first[:start]
        tails = {
            file: "/".join(path[start:])
            for file, path in parts.items()
            if len(path) - start > 1 or ends_root or _is_absolute(file)
        }
        found = {file: candidates for file, tail in tails.items() if (candidates := lookup.find(tail))}
        if len(found) > len(best):
            best = found
    return best


def _num_shared(paths: Sequence[Sequence[str]]) -> int:
    """How many folders all paths start with."""
    differing = (number for number, names in enumerate(zip(*paths, strict=False)) if len(set(names)) > 1)
    return next(differing, min(map(len, paths), default=0))


def _is_absolute(file: str) -> bool:
    """Whether a path starts at the root of a file system, on any system."""
    return file.startswith("/") or PureWindowsPath(file).is_absolute()


def check_listed(found: ListedFiles, source: Path, lines: Mapping[str, int]) -> None:
    """Checks that every path of a list means a file, and no two the same one.

    Args:
        found: The files.
        source: The list.
        lines: The line of each path in the list.

    Raises:
        UserError: Paths are missing, are folders, or mean the same file.
    """
    if found.folders:
        file = found.folders[0]
        raise UserError(f"Row {lines[file]} of {source} names {file}, which is a folder: list its images one per row.")
    _check_distinct(found, source, lines)
    if not found.missing:
        return
    total = len(found.names) + len(found.missing)
    shown = ", ".join(found.missing[:_SHOWN]) + (", …" if len(found.missing) > _SHOWN else "")
    raise UserError(
        f"{len(found.missing):,} of the {total:,} images that {source} lists are missing: {shown} (row "
        f"{lines[found.missing[0]]}). They were looked for in {found.root.resolve()}, by path, by name, and with an "
        f"extension added. {_advice(found, source)}"
    )


def _check_distinct(found: ListedFiles, source: Path, lines: Mapping[str, int]) -> None:
    written_as: dict[str, str] = {}
    for written, file in found.names.items():
        other = written_as.setdefault(file, written)
        if other != written:
            raise UserError(
                f"Rows {lines[other]} and {lines[written]} of {source}, {other} and {written}, both mean {found.root / file}: "
                "give each image one row."
            )


def _advice(found: ListedFiles, source: Path) -> str:
    """What to do about missing paths."""
    several = next(iter(found.candidates.items()), None)
    if several is not None:
        written, files = several
        shown = ", ".join(files[:_SHOWN]) + (", …" if len(files) > _SHOWN else "")
        return f"{written} may be any of {shown}: write its folder too, or pass the intended folder as --data.root."
    beside = source.resolve().parent
    for folder in dict.fromkeys((beside, beside.parent, Path.cwd())):
        if folder != found.root.resolve() and all(os.path.isfile(folder / file) for file in found.missing):
            return f"They are in {folder}: pass --data.root {folder}."
    advice = "Put them there, pass the folder that the paths start from as --data.root, or delete these rows."
    others = _Lookup(Tree.read(found.root).images).other_extensions(found.missing[0])
    return f"There is {others[0]}, with another extension. {advice}" if others else advice
