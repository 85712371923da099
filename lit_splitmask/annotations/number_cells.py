"""What the cells of a column of numbers say. Pure functions."""

import re
from collections.abc import Iterable

MOST = 1e18
"""Largest number: its square is still finite in float32, in which losses and scores are computed."""

MANY = 20
"""A class column with at least this many different numbers may be a measurement."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_WITH_COMMAS = re.compile(r"[-+]?[\d.]*\d,\d+([eE][-+]?\d+)?", re.ASCII)


def number_in(cell: str) -> float:
    """The number in a cell.

    Raises:
        ValueError: It holds none; the message says why, as the end of a sentence.
    """
    if _WITH_COMMAS.fullmatch(cell):
        raise ValueError(
            "which has a comma: write numbers with a decimal point and nothing between thousands, as in 3.5 or 12000"
        )
    if not _NUMBER.fullmatch(cell):
        raise ValueError(
            "which is not a number: write the number alone, without a unit, or empty the cell if it is unknown"
        )
    if abs(float(cell)) > MOST:
        raise ValueError(f"which is beyond ±{MOST:g}: give the column another unit")
    return float(cell) + 0.0  # -0 is 0


def are_numbers(cells: Iterable[str]) -> bool:
    """Whether all cells that are not empty hold numbers, and there are any."""
    found = [cell for cell in cells if cell]
    return bool(found) and all(map(_NUMBER.fullmatch, found))


def many_numbers(cells: Iterable[str]) -> int:
    """How many different numbers a class column has, if they may be measurements; otherwise 0."""
    found = {cell for cell in cells if cell}
    return len(found) if len(found) >= MANY and are_numbers(found) else 0
