"""Reads a CSV file with any usual separator and encoding."""

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from lit_splitmask.errors import UserError
from lit_splitmask.files import read_bytes

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""The separators that are tried, with their names for messages."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .xls
_EXCEL_HINT = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # a first line by which Excel names the separator


@dataclass(frozen=True)
class Table:
    """A CSV file.

    Attributes:
        path: The file.
        header: Names of the columns, stripped.
        rows: Cells of each row, stripped, as many as there are columns.
        lines: The line of the file that each row ends on, from 1.
        notes: How it was read, where it is not plain CSV.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    notes: list[str]

    def cells(self, column: int) -> list[str]:
        """The cells of a column."""
        return [row[column] for row in self.rows]

    def row(self, number: int) -> str:
        """A row for messages."""
        return f"Row {self.lines[number]} of {self.path}"


def read_table(path: Path) -> Table:
    """Reads a CSV file with a header.

    Raises:
        UserError: The file is missing, is not text in UTF-8 or UTF-16, or has a row with more cells than the header.
    """
    text, encoding = _decode(path)
    notes = [f"{path} is read as {encoding}."] if encoding != "UTF-8" else []
    text, skipped, separator = _without_hint(text)
    separator = separator or _separator(text)
    if separator != ",":
        notes.append(f"The columns of {path} are separated by {SEPARATORS.get(separator, repr(separator))}.")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        rows = [([cell.strip() for cell in cells], reader.line_num + skipped) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): save it again as CSV in UTF-8.") from error
    header = rows[0][0] if rows else []
    while header and not header[-1]:
        header.pop()  # every line ends with a separator
    for cells, line in rows[1:]:
        if any(cells[len(header) :]):
            raise UserError(
                f"Row {line} of {path} has {len(cells)} cells, but the header has {len(header)}: put cells that contain a "
                f"separator ({separator!r}) in double quotes."
            )
    width = len(header)
    padded = [(cells + [""] * width)[:width] for cells, _ in rows[1:]]
    kept = [(cells, line) for cells, (_, line) in zip(padded, rows[1:], strict=True) if any(cells)]
    return Table(path, header, [cells for cells, _ in kept], [line for _, line in kept], notes)


def _decode(path: Path) -> tuple[str, str]:
    """The text of a file, and its encoding."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise UserError(f"The file {path} does not exist (from {Path.cwd()}). Check the path.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a CSV file: pass the file itself.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None
    if data.startswith(_EXCEL):
        raise UserError(f"{path} is an Excel workbook, not a CSV file: save it as 'CSV UTF-8' and pass that file.")
    encoding, name = ("utf-16", "UTF-16") if data.startswith(_UTF_16) else ("utf-8-sig", "UTF-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not a CSV file in UTF-8 or in UTF-16 with a byte order mark ({error}): save it as 'CSV UTF-8' (Excel), "
            f"or convert it, for example with `iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8.csv`."
        ) from error
    if text[:40].count("\0") * 3 >= len(text[:40]) > 0:
        raise UserError(
            f"{path} contains NUL characters, as UTF-16 without a byte order mark does: save it as 'CSV UTF-8' (Excel), or "
            f"convert it, for example with `iconv -f UTF-16LE -t UTF-8 {path.name} > utf8.csv`."
        )
    return text, name


def _without_hint(text: str) -> tuple[str, int, str | None]:
    """The text without Excel's line for the separator; the number of lines removed, and the separator."""
    first, _, rest = text.partition("\n")
    match = _EXCEL_HINT.fullmatch(first.rstrip("\r"))
    return (rest, 1, match.group(1)) if match else (text, 0, None)


def _separator(text: str) -> str:
    """The separator that splits the header into the most cells; the comma if none does."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    counts = {separator: len(next(csv.reader([header], delimiter=separator), [])) for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda separator: counts[separator])  # the first of equals: the comma
