"""The classes of label maps: how many, what they are called, and whether the maps can mean them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_splitmask.annotations.label_maps import BINARY, Coding, to_values
from lit_splitmask.annotations.paired_files import Record
from lit_splitmask.annotations.pairs import ADE20K, ADE20K_NAMES, Pairs
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines

PLAIN_NAMES = "classes.txt"
ROBOFLOW_NAMES = ("_classes.csv", "train/_classes.csv")
USUAL_VOID = 255
MANY_VALUES = 150
"""More values than this are taken for classes only if their names or their number are given."""
_FEW_VALUES = 12


def read_names(root: Path, given: str | None) -> list[str]:
    """Class names, one per line, or from the tables of ADE20K and Roboflow; none where there is no file.

    Args:
        root: Where ``classes.txt``, ``objectInfo150.txt`` or ``_classes.csv`` may be.
        given: A file that must exist.

    Raises:
        UserError: The file is missing, or names a class twice.
    """
    candidates = [root / PLAIN_NAMES, root / ADE20K_NAMES, root / ADE20K / ADE20K_NAMES]
    candidates += [root / name for name in ROBOFLOW_NAMES]
    path = Path(given).expanduser() if given is not None else next((p for p in candidates if p.is_file()), None)
    if path is None:
        return []
    lines = read_lines(path)
    if lines and lines[0].split("\t")[0].strip() == "Idx":
        lines = [line.split("\t")[-1].strip() for line in lines[1:]]
    elif path.suffix.lower() == ".csv":
        lines = _numbered(path, lines)
    twice = sorted(name for name, count in Counter(lines).items() if count > 1)
    if twice or not lines:
        raise UserError(f"{path} names the class {twice[0]} more than once" if twice else f"{path} names no class")
    return lines


def _numbered(path: Path, lines: Sequence[str]) -> list[str]:
    """The names in Roboflow's table of pixel values and classes."""
    if not lines or not lines[0].lower().startswith("pixel value"):
        return list(lines)
    rows = [line.partition(",") for line in lines[1:]]
    if [number.strip() for number, _, _ in rows] != [str(number) for number in range(len(rows))]:
        raise UserError(
            f"{path} does not number its classes 0, 1, 2, …: write their names into {PLAIN_NAMES}, one per line."
        )
    return [name.strip() for _, _, name in rows]


@dataclass(frozen=True)
class LabelledSplits:
    """The maps of a folder, by split.

    Attributes:
        root: The folder.
        pairs: Its images and maps.
        splits: Images by split.
        record: What is known about each file.
    """

    root: Path
    pairs: Pairs
    splits: Mapping[str, Sequence[str]]
    record: Record

    def maps(self, split: str) -> list[str]:
        """The maps of a split."""
        return [self.pairs.maps[file] for file in self.splits.get(split, []) if file in self.pairs.maps]

    def all_maps(self) -> list[str]:
        """The maps of all splits, each once."""
        return list(dict.fromkeys(file for split in self.splits for file in self.maps(split)))

    def values(self, maps: Sequence[str]) -> set[int]:
        """The values that occur in maps."""
        return {value for file in maps for value in self.record[file].values}


def classes_of(
    data: LabelledSplits, coding: Coding, *, names: Sequence[str], num_classes: int | None, void_is_given: bool
) -> list[str]:
    """The names of the classes, by number; where none are given, the values that stand for them.

    Their number is given, or that of the names, of the values that the coding gives to classes, or what the training maps have.

    Args:
        data: The maps.
        coding: What their values stand for.
        names: Names of the classes, if they are known.
        num_classes: Their number, if it is given.
        void_is_given: Whether the user says which value means no label.

    Raises:
        UserError: The maps of a split have no label, a map has a value that stands for no class, there are other numbers of names
            and classes, or it is unclear what a value means.
    """
    _check_labelled(data, coding.void)
    if coding.values is not None:
        return _coded(data, coding, names, num_classes)
    if names and num_classes is not None and len(names) != num_classes:
        raise UserError(f"num_classes={num_classes}, but {len(names)} classes are named: give one of them.")
    if not void_is_given and coding.table is None and coding.void == USUAL_VOID:
        _check_usual_void(data, len(names))
    train = data.maps("train")
    values = data.values(train) - {coding.void}
    most = max(values, default=-1)
    count = num_classes or len(names) or most + 1 - (most > coding.void)
    if not count:
        return []
    if not names and num_classes is None:
        _check_values_are_classes(data, values, count, coding.void, void_is_given=void_is_given)
    _check_last(data, count, coding.void, is_given=bool(names or num_classes))
    return list(names) or [str(value) for value in to_values(np.arange(count), coding.void)]


def _check_labelled(data: LabelledSplits, void: int) -> None:
    for split in data.splits:
        maps = data.maps(split)
        if maps and not data.values(maps) - {void}:
            purpose = "for training" if split == "train" else f"of {split}"
            raise UserError(
                f"No pixel of the {len(maps):,} label maps {purpose} in {data.root} is labelled: all have the value {void}, "
                "which is void. Correct them, or set data.void to the value that means no label."
            )


def _coded(data: LabelledSplits, coding: Coding, names: Sequence[str], num_classes: int | None) -> list[str]:
    """The names where each class has a value of its own."""
    values = coding.values or ()
    for what, count in (("data.num_classes is", num_classes), ("the number of class names is", len(names) or None)):
        if count not in (None, len(values)):
            raise UserError(
                f"The label maps in {data.root} have the values {', '.join(map(str, values))}, one for each of "
                f"{len(values)} classes, but {what} {count}: correct it, or set data.values to the value of each class."
            )
    for file in data.all_maps():
        unknown = sorted(set(data.record[file].values) - set(values) - {coding.void})
        if unknown:
            raise UserError(
                f"The label map {data.root / file} has the value {unknown[0]}, but the values of the classes are "
                f"{', '.join(map(str, values))} and void is {coding.void}: correct the map, data.values or data.void."
            )
    return list(names) or [str(value) for value in values]


def _check_usual_void(data: LabelledSplits, num_names: int) -> None:
    """Raises an error if 255 may be a class, although it means no label by default."""
    maps = data.all_maps()
    values = data.values(maps)
    if USUAL_VOID not in values:
        return
    absent = [number for number in range(num_names) if number not in values]
    if absent:
        as_class = f", or pass --data.values '{_listed(values)}' if it is a class" if len(values) == num_names else ""
        raise UserError(
            f"The label maps in {data.root} have the value {USUAL_VOID}, but none has the value {absent[0]}, although its class "
            f"is named: set data.void to {USUAL_VOID} if {USUAL_VOID} means no label{as_class}."
        )
    scaled = [
        file for file in maps if set(data.record[file].values) <= set(BINARY) and USUAL_VOID in data.record[file].values
    ]
    others = [file for file in maps if max(data.record[file].values, default=0) not in (0, USUAL_VOID)]
    if scaled and others and not any(USUAL_VOID in data.record[file].values for file in others):
        raise UserError(
            f"Some label maps in {data.root} have only 0 and {USUAL_VOID}, such as {scaled[0]}, and the others have small "
            f"values without {USUAL_VOID}, such as {others[0]}: they seem to number the classes differently. Correct the maps, "
            f"or set data.void to {USUAL_VOID} if it means no label."
        )


def _check_values_are_classes(
    data: LabelledSplits, values: set[int], count: int, void: int, *, void_is_given: bool
) -> None:
    """Raises an error if the values of the training maps are hardly the numbers of classes."""
    if count - len(values) <= len(values) <= MANY_VALUES:
        return
    most = max(values)
    where = next(file for file in data.maps("train") if most in data.record[file].values)
    found = data.values(data.maps("train")) - ({void} if void_is_given else set())
    if len(found) <= _FEW_VALUES:
        advice = f"If each stands for a class, pass --data.values '{_listed(found)}'."
    else:
        advice = "If they are classes, set data.num_classes or data.classes."
    if {0, USUAL_VOID} <= found and len(found) > 3:
        advice += (
            f" If those between 0 and {USUAL_VOID} come from interpolation or compression at the edges of a mask, make the maps "
            "without it, or apply a threshold (`magick mogrify -threshold 50% *.png`)."
        )
    else:
        advice += " Otherwise correct the maps or data.void."
    raise UserError(
        f"The training maps have {len(values)} different values, but the highest, {most} (in {data.root / where}), would make "
        f"{count} classes: they are numbered without gaps. {advice}"
    )


def _listed(values: set[int]) -> str:
    return f"[{','.join(map(str, sorted(values)))}]"


def _check_last(data: LabelledSplits, count: int, void: int, *, is_given: bool) -> None:
    """Raises an error if a map has a value beyond the last class."""
    last = int(to_values(np.array(count - 1), void))
    for file in data.all_maps():
        beyond = [value for value in data.record[file].values if value > last and value != void]
        if beyond:
            raise UserError(
                f"The label map {data.root / file} has the value {beyond[0]}, but there are {count} classes, with values up to "
                f"{last}"
                + ("" if is_given else " in the training maps")
                + f", and void is {void}: correct the map, or set data.num_classes, data.classes or data.void."
            )


def absent_classes(data: LabelledSplits, coding: Coding, names: Sequence[str]) -> list[str]:
    """The classes of which the training maps have no pixel."""
    values = coding.values or to_values(np.arange(len(names)), coding.void).tolist()
    found = data.values(data.maps("train"))
    return [name for name, value in zip(names, values, strict=True) if value not in found]
