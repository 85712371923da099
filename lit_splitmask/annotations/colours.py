"""Colour tables of label maps: which colour is which class."""

import csv
import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file, read_lines

log = logging.getLogger(__name__)

Colour = tuple[int, int, int]

USUAL_FILES = ("labelmap.txt", "class_dict.csv", "label_colors.txt")
"""Files that CVAT, CamVid and others write beside the maps."""

FORMS = "one class per line, as name:r,g,b (CVAT), name,r,g,b (CSV) or r g b name (CamVid), with numbers from 0 to 255"

_VOID = {"void", "ignore", "ignored", "unlabelled", "unlabeled", "unlabel"}


@dataclass(frozen=True)
class ColourTable:
    """The classes of coloured label maps.

    Attributes:
        names: By class.
        colours: By class; all different.
        source: The file, for messages.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    source: str

    @property
    def void(self) -> int | None:
        """The number of the class whose name says that it means no label; None if there is none."""
        return next((number for number, name in enumerate(self.names) if name.lower().strip("_- ") in _VOID), None)

    @property
    def greys(self) -> dict[int, int]:
        """The class of each grey value whose colour is in the table."""
        return {red: number for number, (red, green, blue) in enumerate(self.colours) if red == green == blue}

    def to_values(self, pixels: np.ndarray, path: str | Path) -> np.ndarray:
        """Class numbers of the pixels of a map: (H, W, 3) uint8 -> (H, W) int32.

        Raises:
            UserError: A colour is not in the table.
        """
        codes = pixels.astype(np.int32) @ np.array([65_536, 256, 1], dtype=np.int32)
        table = np.array([red * 65_536 + green * 256 + blue for red, green, blue in self.colours], dtype=np.int32)
        order = np.argsort(table)
        positions = np.searchsorted(table[order], codes).clip(max=len(table) - 1)
        values = order[positions].astype(np.int32)
        unknown = table[values] != codes
        if unknown.any():
            _refuse_colours(path, codes[unknown], self.source)
        return values


def _refuse_colours(path: str | Path, codes: np.ndarray, source: str) -> None:
    different, counts = np.unique(codes, return_counts=True)
    code = int(different[counts.argmax()])
    first = f"the colour {(code >> 16, code >> 8 & 255, code & 255)} in {int(counts.max()):,} pixels"
    others = f" and {len(different) - 1:,} more colours" if len(different) > 1 else ""
    raise UserError(
        f"The label map {path} has {first}{others}, which {source} does not name. Add a missing class there. Colours between "
        "those of two classes come from interpolation or JPEG compression: save such maps without it."
    )


def find_table(root: Path, given: str | None, files: Sequence[str] = USUAL_FILES) -> ColourTable | None:
    """The colour table of a folder: the given file, or one with a usual name; None if there is none.

    Args:
        root: The folder.
        given: A file, relative to the current directory or to the root.
        files: Files in the folder that may be it.

    Raises:
        UserError: The file does not exist, or is not a colour table; or several in the folder differ.
    """
    if given is not None:
        path = Path(given).expanduser()
        return read_table(path if os.path.exists(path) or not is_file(root / given) else root / given)
    usual = [root / file for file in files if file.rpartition("/")[2].lower() in USUAL_FILES]
    found = [_read_usual(path) for path in usual if path.is_file()]
    tables = [table for table in found if table is not None]
    if any((table.names, table.colours) != (tables[0].names, tables[0].colours) for table in tables):
        raise UserError(
            f"{' and '.join(table.source for table in tables)} name different classes or colours: say which one is right with "
            f"--data.colours {tables[0].source}."
        )
    return tables[0] if tables else None


def _read_usual(path: Path) -> ColourTable | None:
    """A file with the name of a colour table; None if no line of it names a colour, as in a list of names."""
    if not any(map(_parse, read_lines(path))):
        log.info("%s names no colours, so it is not used.", path)
        return None
    return read_table(path)


def read_table(path: Path) -> ColourTable:
    """Reads a colour table: ``name:r,g,b`` (CVAT), ``name,r,g,b`` (CSV), or ``r g b name`` (CamVid), one class per line.

    Raises:
        UserError: The file does not exist, a line is none of these, or a colour or name occurs twice.
    """
    names: list[str] = []
    colours: list[Colour] = []
    for line in read_lines(path):
        entry = _parse(line)
        if entry is None:
            if line.startswith("#") or (not names and not re.search(r"\d", line)):  # a comment or a header
                continue
            raise UserError(f"{path} is not a colour table: the line {line!r} names no colour. Write {FORMS}.")
        names.append(entry[0])
        colours.append(entry[1])
    _check(path, names, colours)
    return ColourTable(tuple(names), tuple(colours), str(path))


def _parse(line: str) -> tuple[str, Colour] | None:
    """The name and the colour of a line; None if it has none."""
    cvat = re.match(r"([^#].*?):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)", line)
    camvid = re.fullmatch(r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+([^\d\s].*)", line)
    if cvat:
        name, *numbers = cvat.groups()
    elif camvid:
        *numbers, name = camvid.groups()
    else:
        delimiter = ";" if line.count(";") >= 3 else ","
        cells = [cell.strip() for cell in next(csv.reader(io.StringIO(line), delimiter=delimiter), [])]
        if len(cells) < 4 or not all(cell.isdecimal() for cell in cells[1:4]):
            return None
        name, *numbers = cells[:4]
    red, green, blue = (int(number) for number in numbers)
    return (name.strip(" \"'"), (red, green, blue)) if max(red, green, blue) <= 255 else None


def _check(path: Path, names: Sequence[str], colours: Sequence[Colour]) -> None:
    if not names:
        raise UserError(f"{path} names no colour. Write {FORMS}.")
    for what, entries in (("the class", names), ("the colour", colours)):
        twice = [entry for entry in entries if list(entries).count(entry) > 1]
        if twice:
            raise UserError(f"{path} names {what} {twice[0]} more than once: give each class its own colour.")


def differing_palettes(palettes: Mapping[str, Mapping[int, Colour]]) -> tuple[int, str, str] | None:
    """A value that stands for two colours in two files, with the files; None if all palettes agree.

    Args:
        palettes: By file, the colour of each value that occurs in it.
    """
    first: dict[int, tuple[str, Colour]] = {}
    for file, palette in palettes.items():
        for value, colour in palette.items():
            other, known = first.setdefault(value, (file, colour))
            if known != colour:
                return value, other, file
    return None
