"""The rows of a manifest: a CSV file that lists images, with their labels, splits and groups."""

import hashlib
import json
import logging
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lit_splitmask.annotations.csv_table import Table, read_table
from lit_splitmask.annotations.label_cells import (
    labels_in,
    near_equal,
    separator_of,
    several_labels,
    shared_words,
    unknown_markers,
)
from lit_splitmask.annotations.manifest_columns import Columns, find_columns, is_true
from lit_splitmask.annotations.number_cells import many_numbers, number_in
from lit_splitmask.errors import UserError
from lit_splitmask.images import label_sets
from lit_splitmask.images.folder_names import SPLITS, Role, same_name, split_of

log = logging.getLogger(__name__)

_SEVERAL = "To train with several labels per image, pass --data.splits.labels several."
_WITHOUT = "To use the images without labels, pass --data.splits.labels none."


@dataclass(frozen=True)
class Rows:
    """The rows of a manifest.

    Attributes:
        files: Paths as written, with forward slashes, in the order of the file.
        labels: Class name by path, for the images that have one; with several labels, the set of them (``images.label_sets``);
            with a target, its number as Python writes it.
        splits: ``train``, ``val`` or ``test`` by path; empty if no splits are given.
        groups: Group by path, for the images that have one.
        lines: The line of the file, by path.
        other_columns: Names of the columns that are not used.
        notes: How the file was read, where it is not plain CSV.
        warnings: What may have another meaning.
    """

    files: list[str]
    labels: dict[str, str]
    splits: dict[str, str]
    groups: dict[str, str]
    lines: dict[str, int] = field(default_factory=dict)
    other_columns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Hash of all rows, in any order."""
        content = [sorted(self.files), *(sorted(column.items()) for column in (self.labels, self.splits, self.groups))]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()

    @property
    def unlabelled(self) -> list[str]:
        """The images without a label, if others have one."""
        return [file for file in self.files if file not in self.labels] if self.labels else []

    def renamed(self, names: Mapping[str, str]) -> "Rows":
        """The same rows with other paths, by those as written."""
        return replace(
            self,
            files=[names[file] for file in self.files],
            labels={names[file]: label for file, label in self.labels.items()},
            splits={names[file]: split for file, split in self.splits.items()},
            groups={names[file]: group for file, group in self.groups.items()},
            lines={names[file]: line for file, line in self.lines.items()},
        )

    def report(self) -> None:
        """Logs the notes and the warnings."""
        for note in self.notes:
            log.info("%s", note)
        for warning in self.warnings:
            log.warning("%s", warning)


def read_manifest(
    path: Path,
    *,
    use_labels: bool = True,
    use_splits: bool = True,
    several: bool = False,
    target: str | None = None,
) -> Rows:
    """Reads a manifest.

    Args:
        path: The CSV file.
        use_labels: Whether its labels are read.
        use_splits: Whether its splits and groups are read.
        several: Whether an image may have several labels: a cell with separators, or any number of columns of 1.
        target: Name of the column of numbers that are the labels; None for classes.

    Raises:
        UserError: The file is missing or not CSV, lacks paths or rows, lists an image twice, gives an image several labels, has
            values that name no split, or has no column of the target, or cells in it that are not numbers.
    """
    table = read_table(path)
    columns = find_columns(table, target)
    notes, warnings = [*table.notes, *columns.notes], list(columns.warnings)
    files = _files(table, columns.path)
    if target is not None:
        labels = _numbers(table, columns, files)
    elif use_labels and several:
        labels = _label_sets(table, columns, files, notes)
    else:
        labels = _labels(table, columns, files) if use_labels else {}
    _check_twice(table, files, labels if target is None else {})
    splits = _splits(table, columns, files) if use_splits else {}
    withheld = [file for file, role in splits.items() if role == "unlabelled" and file in labels]
    if withheld:
        labels = {file: name for file, name in labels.items() if splits.get(file) != "unlabelled"}
        notes.append(f"The labels of {len(withheld):,} images are not used, since their split is unlabelled.")
    groups = {}
    if use_splits and columns.group is not None:
        groups = {file: cell for file, cell in zip(files, table.cells(columns.group), strict=True) if cell}
    if use_labels and columns.perhaps_label:
        names = " or ".join(table.header[number] for number in columns.perhaps_label[:4])
        warnings.append(f"No column is read as the label: if {names} holds the classes, call that column label.")
    if target is None and not several:
        warnings += _doubts(labels)
        notes += _perhaps_numbers(table, columns) if use_labels else []
    return Rows(
        files,
        labels,
        {file: "train" if role == "unlabelled" else role for file, role in splits.items()},
        groups,
        dict(zip(files, table.lines, strict=True)),
        [table.header[number] for number in columns.unused],
        notes,
        warnings,
    )


def _files(table: Table, column: int) -> list[str]:
    files = [cell.replace("\\", "/") for cell in table.cells(column)]
    for number, file in enumerate(files):
        if not file:
            raise UserError(f"{table.row(number)} has no path: name its image, or delete the row.")
        if "\0" in file:
            raise UserError(f"{table.row(number)} has a NUL character in its path: write the path again.")
    return files


def _check_twice(table: Table, files: list[str], labels: Mapping[str, str]) -> None:
    twice = next((file for file, count in Counter(files).items() if count > 1), None)
    if twice is None:
        return
    rows = [number for number, file in enumerate(files) if file == twice]
    lines = ", ".join(str(table.lines[number]) for number in rows[:4])
    why = " If these are several labels of one image, put them into one cell: a|b." if twice in labels else ""
    raise UserError(
        f"The manifest {table.path} lists {twice} in more than one row (rows {lines}): give each image one row.{why}"
    )


# Labels


def _labels(table: Table, columns: Columns, files: list[str]) -> dict[str, str]:
    if columns.one_hot:
        cells = [_one_hot(table, columns.one_hot, number) for number in range(len(files))]
    elif columns.label is not None:
        cells = table.cells(columns.label)
        _check_one_label(table, columns.label, files)
    else:
        return {}
    return {file: same_name(cell) for file, cell in zip(files, cells, strict=True) if cell}


def _numbers(table: Table, columns: Columns, files: list[str]) -> dict[str, str]:
    """The numbers to predict; empty cells are left out."""
    assert columns.label is not None, "find_columns found the target"
    found: dict[str, str] = {}
    for number, (file, cell) in enumerate(zip(files, table.cells(columns.label), strict=True)):
        try:
            found |= {file: repr(number_in(cell))} if cell else {}
        except ValueError as error:
            name = table.header[columns.label]
            raise UserError(f"{table.row(number)} gives {file} {cell!r} in the column {name}, {error}.") from None
    if len(set(found.values())) < 2:
        held = "holds no number" if not found else f"has {next(iter(found.values()))} for every image"
        raise UserError(
            f"The column {table.header[columns.label]} of {table.path} {held}, so there is nothing to predict: name another "
            "with --data.target COLUMN."
        )
    return found


def _perhaps_numbers(table: Table, columns: Columns) -> list[str]:
    """A note if the classes may be numbers to predict."""
    count = 0 if columns.label is None else many_numbers(table.cells(columns.label))
    if not count:
        return []
    assert columns.label is not None
    name = table.header[columns.label]
    command = ["finetune", "--task", "regress", "--data.manifest", str(table.path), "--data.target", name]
    return [
        f"The column {name} has {count:,} different numbers, each of which is read as a separate class. If they are "
        f"measurements to predict: lit-splitmask {shlex.join(command)}"
    ]


def _label_sets(table: Table, columns: Columns, files: list[str], notes: list[str]) -> dict[str, str]:
    """The set of labels of each image that has been labelled; it is empty for a row of 0s."""
    if columns.one_hot:
        named = [
            [(table.header[column], table.rows[n][column]) for column in columns.one_hot] for n in range(len(files))
        ]
        found = [
            [name for name, cell in row if is_true(cell)] if any(cell for _, cell in row) else None for row in named
        ]
    elif columns.label is not None:
        cells = table.cells(columns.label)
        separator = separator_of(cells)
        found = [labels_in(cell, separator) if cell else None for cell in cells]
        apart = f"separated by {separator!r}" if separator else "one to a cell"
        notes.append(f"The labels in the column {table.header[columns.label]} are {apart}.")
    else:
        return {}
    return {
        file: label_sets.join(map(same_name, names))
        for file, names in zip(files, found, strict=True)
        if names is not None
    }


def _one_hot(table: Table, columns: list[int], number: int) -> str:
    """The class of a row of 0s and one 1; empty if all its cells are."""
    cells = [table.rows[number][column] for column in columns]
    names = [table.header[column] for column, cell in zip(columns, cells, strict=True) if is_true(cell)]
    if len(names) == 1 or not any(cells):
        return "".join(names)
    among = ", ".join(table.header[column] for column in columns[:4]) + (", …" if len(columns) > 4 else "")
    if names:
        raise UserError(
            f"{table.row(number)} has a 1 in the columns {' and '.join(names[:3])}: one label per image is expected. "
            f"{_SEVERAL} If the columns {among} are not classes, put the class into a column label. {_WITHOUT}"
        )
    raise UserError(
        f"{table.row(number)} has no 1 in the columns {among}, each of which is a class: put the class of every image into "
        f"a column label, or empty these cells if the image has none. {_WITHOUT}"
    )


def _check_one_label(table: Table, column: int, files: list[str]) -> None:
    cells = table.cells(column)
    found = several_labels(cells)
    if found is None:
        return
    number = cells.index(found.example)
    name, listed = table.header[column], " and ".join(repr(part) for part in found.parts[:4])
    if found.certain:
        raise UserError(
            f"{table.row(number)} gives {files[number]} several labels, {listed}, in the column {name} ({found.example!r}): "
            f"one label per image is expected. {_SEVERAL} {_WITHOUT}"
        )
    raise UserError(
        f"The labels in the column {name} of {table.path} can be read in two ways: {found.example!r} (row "
        f"{table.lines[number]}) may be one class, or the labels {listed}. If it is one class, write it without spaces and "
        f"commas ({'_'.join(found.parts)!r}); {_SEVERAL} {_WITHOUT}"
    )


def _doubts(labels: Mapping[str, str]) -> list[str]:
    """Warnings about the names of the classes."""
    names = set(labels.values())
    doubts = []
    for group in near_equal(names):
        shown = " and ".join(repr(name) for name in group)
        doubts.append(f"The classes {shown} have nearly the same name: if they are one class, use one spelling.")
    markers = unknown_markers(names)
    if markers:
        shown = ", ".join(repr(name) for name in markers)
        doubts.append(f"There is a class {shown}: if these images have no label, leave the cell empty.")
    shared = shared_words(names)
    if shared is not None:
        doubts.append(
            f"The class {shared[0]!r} contains the name of the class {shared[1]!r}. If it stands for several labels of an image: "
            "--data.splits.labels several reads them."
        )
    return doubts


# Splits


def _splits(table: Table, columns: Columns, files: list[str]) -> dict[str, Role]:
    if columns.flags:
        return {file: _flagged(table, columns.flags, number) for number, file in enumerate(files)}
    if columns.split is None:
        return {}
    cells = table.cells(columns.split)
    roles = {cell: split_of(cell) for cell in set(cells)}
    wrong = sorted(cell for cell, role in roles.items() if cell and role not in (*SPLITS, "unlabelled"))
    name = table.header[columns.split]
    if wrong:
        number = cells.index(wrong[0])
        shown = ", ".join(repr(cell) for cell in wrong[:4]) + (", …" if len(wrong) > 4 else "")
        raise UserError(
            f"{table.row(number)} gives {files[number]} the split {cells[number]!r}. Values of the column {name} that are not "
            f"splits: {shown}. Use train, val or test (or unlabelled, for images to pre-train on), or rename the column."
        )
    if "" in roles:
        number = cells.index("")
        raise UserError(
            f"The manifest {table.path} gives some images a split, but not {files[number]} (row {table.lines[number]}): give "
            "every image one, or none."
        )
    return {file: role for file, cell in zip(files, cells, strict=True) if (role := roles[cell]) is not None}


def _flagged(table: Table, flags: Mapping[int, Role], number: int) -> Role:
    """The split of a row by its flags; without any, the one that has no flag."""
    named: list[Role] = [role for column, role in flags.items() if is_true(table.rows[number][column])]
    if len(named) == 1:
        return named[0]
    rest: Role = "train" if "train" not in flags.values() else "test"
    if named or rest in flags.values():
        listed = ", ".join(table.header[column] for column in flags)
        raise UserError(f"{table.row(number)} is in {len(named)} splits by its columns {listed}: it must be in one.")
    return rest
