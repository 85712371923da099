"""File names in little memory, for datasets of millions of images."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np


class Names(Sequence[str]):
    """An immutable sequence of strings, stored as one block of UTF-8.

    A list of Python strings takes about 100 bytes per name, and every worker that reads it ends up with its own copy, because
    reading changes reference counts. An array stays shared.

    Args:
        names: The strings; any that a file system can hold.
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts = [name.encode("utf-8", "surrogatepass") for name in names]
        self._text = np.frombuffer(b"".join(parts), dtype=np.uint8)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "Names": ...

    def __getitem__(self, index: int | slice) -> "str | Names":
        if isinstance(index, slice):
            return Names(self[number] for number in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = self._ends[index - 1] if index else 0
        return self._text[start : self._ends[index]].tobytes().decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The index of a name, by bisection: the names must be sorted.

        Raises:
            ValueError: It is not among the names.
        """
        index = bisect_left(self, value, start, len(self) if stop is None else stop)
        if index == len(self) or self[index] != value:
            raise ValueError(f"{value!r} is not among the names")
        return index
