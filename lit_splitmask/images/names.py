"""File names in little memory, for datasets of millions of images."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

_CHUNK = 4096


class Names(Sequence[str]):
    """An immutable sequence of strings, stored as one block of UTF-8.

    A list of Python strings takes about 100 bytes per name, and every worker that reads it ends up with its own copy, because
    reading changes reference counts. An array stays shared.

    Args:
        names: The strings; any that a file system can hold.
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts = [name.encode("utf-8", "surrogatepass") for name in names]
        self.text = np.frombuffer(b"".join(parts), dtype=np.uint8)
        self.ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    @classmethod
    def of(cls, text: np.ndarray, ends: np.ndarray) -> "Names":
        """Names over arrays that exist, such as a mapped file's, without a copy.

        Args:
            text: (m,) uint8, all names one after the other in UTF-8.
            ends: (n,) int64, where each name ends.
        """
        names = cls.__new__(cls)
        names.text, names.ends = text, ends
        return names

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(0, len(self), _CHUNK):
            for end in self.ends[first : first + _CHUNK].tolist():
                yield self.text[start:end].tobytes().decode("utf-8", "surrogatepass")
                start = end

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
        start = self.ends[index - 1] if index else 0
        return self.text[start : self.ends[index]].tobytes().decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return np.array_equal(self.ends, other.ends) and np.array_equal(self.text, other.text)
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

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """The indices of several names, (n,) int64: the names must be sorted.

        Raises:
            ValueError: One is not among the names.
        """
        if isinstance(names, Selection) and names.names is self:
            return names.numbers
        if names is self:
            return np.arange(len(self))
        if len(names) < len(self) // 64:  # a dictionary of all names takes as long as 64 bisections for each
            return np.array([self.index(name) for name in names], dtype=np.int64)
        number_of = {name: number for number, name in enumerate(self)}
        missing = next((name for name in names if name not in number_of), None)
        if missing is not None:
            raise ValueError(f"{missing!r} is not among the names")
        return np.array([number_of[name] for name in names], dtype=np.int64)


class Selection(Sequence[str]):
    """Some of the names, by their numbers.

    Args:
        names: All names.
        numbers: (n,) integers, the indices of the chosen names.
    """

    def __init__(self, names: Names, numbers: np.ndarray) -> None:
        self.names, self.numbers = names, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "Selection": ...

    def __getitem__(self, index: int | slice) -> "str | Selection":
        if isinstance(index, slice):
            return Selection(self.names, self.numbers[index])
        return self.names[int(self.numbers[index])]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Selection) and self.names == other.names:
            return np.array_equal(self.numbers, other.numbers)
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))
