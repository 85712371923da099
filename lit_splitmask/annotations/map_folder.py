"""Reads a folder of images and label maps: its pairs, what is known about each file, and what the values of the maps mean."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lit_splitmask.annotations.colours import ColourTable, find_table
from lit_splitmask.annotations.label_classes import USUAL_VOID
from lit_splitmask.annotations.label_maps import BINARY, MOST_VALUES, Coding
from lit_splitmask.annotations.paired_files import (
    Record,
    by_table,
    is_binary,
    load_record,
    readable,
    scan_pairs,
    turns_to_confirm,
)
from lit_splitmask.annotations.pairs import ADE20K_NAMES, Pairs, find_pairs
from lit_splitmask.errors import UserError
from lit_splitmask.images.tree import Tree

ADE20K_VOID, ADE20K_CLASSES = 0, 150

Note = tuple[int, str]
"""The level and the text of a line for the log."""


@dataclass(frozen=True)
class MapOptions:
    """What the user says about the values of label maps.

    Args:
        void: The value that means no label; None for the usual one.
        values: The value of each class; None to find out.
        colours: File with the colour of each class; None for one in the folder.

    Raises:
        UserError: ``void`` or one of ``values`` is not a possible value, values are repeated, or given with ``colours``.
    """

    void: int | None = None
    values: tuple[int, ...] | None = None
    colours: str | None = None

    def __post_init__(self) -> None:
        if self.void is not None and not 0 <= self.void < MOST_VALUES:
            raise UserError(
                f"void={self.void}, but the values of label maps are 0 to {MOST_VALUES - 1:,}: give the value that means no "
                "label, or one that no pixel has."
            )
        if self.values is None:
            return
        if self.colours is not None:
            raise UserError("data.values and data.colours both say what the maps mean: give one of them.")
        allowed = all(0 <= value < MOST_VALUES for value in self.values)
        if not self.values or len(set(self.values)) < len(self.values) or not allowed:
            raise UserError(
                f"values={list(self.values)}, but each class needs a different value, from 0 to {MOST_VALUES - 1:,}: for "
                "example [0, 255]."
            )
        if self.void in self.values:
            raise UserError(f"void={self.void} is also the value of a class in values={list(self.values)}: change one.")

    def usual_void(self, is_ade20k: bool, table: ColourTable | None = None) -> int:
        """The value that means no label, if the maps do not say anything else."""
        if self.void is not None:
            return self.void
        if table is not None:
            return table.void if table.void is not None else max(USUAL_VOID, len(table.names))
        return ADE20K_VOID if is_ade20k else USUAL_VOID


@dataclass(frozen=True)
class MapFolder:
    """A folder, read.

    Attributes:
        root: The folder.
        pairs: The images that can be read, and their maps.
        record: What is known about each file.
        coding: What the values of the maps stand for.
        notes: Lines for the log: what is left out, and what is assumed.
    """

    root: Path
    pairs: Pairs
    record: Record
    coding: Coding
    notes: tuple[Note, ...]

    @classmethod
    def read(cls, root: Path, path: Path, options: MapOptions, *, scan: bool) -> "MapFolder":
        """Reads a folder.

        Args:
            root: The folder.
            path: The record of its files.
            options: What the user says about the values.
            scan: Whether to read new and changed files; otherwise the record must have all.

        Raises:
            UserError: The files cannot be used, or changed since they were scanned.
        """
        tree = Tree.read(root)
        found = find_pairs(root, tree)
        table = find_table(root, options.colours, tree.label_files) if options.values is None else None
        if scan:
            record: Record = scan_pairs(root, found, path, table)
        else:
            record = load_record(path, table)
            files = [file for split in found.splits.values() for file in split]
            if not record.keys() >= {*files, *found.maps.values()}:
                raise UserError(f"The files in {root} have changed since they were read: call prepare_data() again.")
        pairs, bad = readable(root, found, record)
        maps = list(pairs.maps.values())
        grey_is_colour = False
        if table is not None:
            record, grey_is_colour = by_table(root, record, maps, table, options.usual_void(False, table))
        coding = _coding(options, pairs, record, table, grey_is_colour)
        notes = [(logging.WARNING, text) for text in (*bad.values(), *_left_out(tree, found), *_assumed(pairs, record))]
        return cls(root, pairs, record, coding, (*notes, *_meaning(root, options, coding)))

    @property
    def hashes(self) -> dict[str, str]:
        """Hash of the pixels, by image."""
        return {file: self.record[file].hash for split in self.pairs.splits.values() for file in split}

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Height and width, by image."""
        return {file: self.record[file].shape for split in self.pairs.splits.values() for file in split}

    def check_void(self, options: MapOptions) -> None:
        """Checks that void is given where it may not be 255.

        Raises:
            UserError: It is not.
        """
        if options.void is not None or self.pairs.is_ade20k or self.coding.values or self.coding.table:
            return
        largest = {file: max(self.record[file].values, default=0) for file in self.pairs.maps.values()}
        has_its_folders = (self.root / "images" / "training").is_dir()
        if has_its_folders and max(largest.values(), default=0) <= ADE20K_CLASSES:
            raise UserError(
                f"{self.root} has the folders of ADE20K, but neither its name nor its table of classes ({ADE20K_NAMES}): set "
                f"data.void to {ADE20K_VOID} if it is ADE20K, where 0 means no label, otherwise to {USUAL_VOID}."
            )
        file = next((file for file, value in largest.items() if value > USUAL_VOID), None)
        if file is not None:
            raise UserError(
                f"The label map {self.root / file} has values above {USUAL_VOID}, so {USUAL_VOID} may be a class or mean "
                "no label: set data.void to the value that means no label, or to one that no pixel has."
            )


def _coding(
    options: MapOptions, pairs: Pairs, record: Record, table: ColourTable | None, grey_is_colour: bool
) -> Coding:
    """What the values of the maps stand for."""
    void = options.usual_void(pairs.is_ade20k, table)
    if table is not None:
        return Coding(void, table=table, grey_is_colour=grey_is_colour)
    if options.values is not None:
        return Coding(void if void not in options.values else max(options.values) + 1, options.values)
    maps = [record[file] for file in pairs.maps.values()]
    if options.void is None and not pairs.is_ade20k and is_binary(maps):
        return Coding(max(BINARY) + 1, BINARY)
    return Coding(void)


def _meaning(root: Path, options: MapOptions, coding: Coding) -> Iterator[Note]:
    """What was found out about the values, although the user did not say it."""
    if coding.values == BINARY and options.values is None:
        yield logging.INFO, f"The label maps in {root} are read as two classes: 0 and 255."
    table = coding.table
    if table is not None and options.colours is None:
        yield logging.INFO, f"The label maps in {root} are read by the colours in {table.source}."
    if table is not None and options.void is None and table.void is not None:
        yield (
            logging.WARNING,
            f"The class {table.names[table.void]} of {table.source} counts as no label; data.void={USUAL_VOID} makes it a class.",
        )


def _left_out(tree: Tree, pairs: Pairs) -> Iterator[str]:
    for line in tree.describe_left_out():
        yield f"Not read: {line}."
    for what, files in pairs.left_out.items():
        shown = ", ".join(files[:3]) + (", …" if len(files) > 3 else "")
        yield f"Left out: {len(files):,} {what} ({shown})."


def _assumed(pairs: Pairs, record: Record) -> Iterator[str]:
    turned = turns_to_confirm(pairs, record)
    if turned:
        yield (
            f"{len(turned):,} images have an EXIF rotation, such as {turned[0]}, and their sizes do not tell whether their maps "
            "were drawn on the upright images, as is assumed: check one of them."
        )
