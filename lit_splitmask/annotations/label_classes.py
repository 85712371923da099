"""The classes of label maps: how many, and what they are called."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lit_splitmask.annotations.label_maps import ADE20K, ADE20K_NAMES, FileFacts, Pairs, to_values
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_lines

PLAIN_NAMES = "classes.txt"


def read_names(root: Path, given: str | None) -> list[str]:
    """Class names, one a line, or the last column of ADE20K's table; none where there is no file.

    Args:
        root: Where ``classes.txt`` or ``objectInfo150.txt`` may lie.
        given: A file that must exist.

    Raises:
        UserError: The file is missing, or names a class twice.
    """
    candidates = [root / PLAIN_NAMES, root / ADE20K_NAMES, root / ADE20K / ADE20K_NAMES]
    path = Path(given).expanduser() if given is not None else next((p for p in candidates if p.is_file()), None)
    if path is None:
        return []
    lines = read_lines(path)
    if lines and lines[0].split("\t")[0].strip() == "Idx":
        lines = [line.split("\t")[-1].strip() for line in lines[1:]]
    twice = sorted({name for name in lines if lines.count(name) > 1})
    if twice or not lines:
        raise UserError(f"{path} names the class {twice[0]} more than once" if twice else f"{path} names no class")
    return lines


def classes_of(
    root: Path, pairs: Pairs, splits: Mapping[str, Sequence[str]], record: Mapping[str, FileFacts], *, void: int,
    names: Sequence[str], num_classes: int | None,
) -> list[str]:  # fmt: skip
    """The names of the classes, by number; where none are given, the values that stand for them.

    Their number is given, or that of the names, or what the training maps have.

    Raises:
        UserError: Nothing in the training maps is labelled, a map has a value beyond the last class, or there are as many
            names as there are not classes.
    """
    train = [pairs.maps[file] for file in splits.get("train", [])]
    values = {value for file in train for value in record[file].values} - {void}
    if train and not values:
        raise UserError(
            f"No pixel of the {len(train):,} label maps for training in {root} is labelled: all have the value {void}, which is "
            "void. Set data.void to the value that means no label."
        )
    if names and num_classes is not None and len(names) != num_classes:
        raise UserError(f"num_classes={num_classes}, but {len(names)} classes are named: give one of them.")
    for name, files in splits.items():
        maps = [pairs.maps[file] for file in files if file in pairs.maps]
        if maps and not any(set(record[file].values) - {void} for file in maps):
            raise UserError(
                f"No pixel of the {len(maps):,} label maps of {name} in {root} is labelled, so nothing can be scored there: all "
                f"have the value {void}, which is void. Correct them, or set data.void to the value that means no label."
            )
    most = max(values, default=-1)
    count = num_classes or len(names) or most + 1 - (most > void)
    if not train and not names and num_classes is None:
        return []
    absent = count - len(values)
    if absent > len(values) and not names and num_classes is None:
        where = next(file for file in train if most in record[file].values)
        raise UserError(
            f"The training maps have {len(values)} different values, but the highest, {most} (in {root / where}), would make "
            f"{count} classes: they are numbered without gaps. Correct the maps, or set data.num_classes, data.classes or "
            "data.void."
        )
    last = int(to_values(np.array(count - 1), void))
    for file in dict.fromkeys(pairs.maps[image] for files in splits.values() for image in files if image in pairs.maps):
        beyond = [value for value in record[file].values if value > last and value != void]
        if beyond:
            raise UserError(
                f"The label map {root / file} has the value {beyond[0]}, but there are {count} classes, of values up to {last}"
                + ("" if names or num_classes else " in the training maps")
                + f", and void is {void}: correct the map, or set data.num_classes, data.classes or data.void."
            )
    return list(names) or [str(value) for value in to_values(np.arange(count), void)]
