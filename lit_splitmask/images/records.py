"""The records of a folder's files as columns, which a mapped file can hold: millions of files in little memory."""

import codecs
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lit_splitmask.images.names import Names
from lit_splitmask.images.scan import FileRecord

_CHUNK = 2**20
_TYPES = {"text": "u", "ends": "i", "sizes": "i", "mtimes": "i", "hashes": "S", "shapes": "i"}


class Records(Mapping[str, FileRecord]):
    """Records of image files by their paths, sorted, as columns.

    Attributes:
        names: The paths.
        sizes, mtimes: (n,) int64, sizes in bytes and modification times in nanoseconds.
        hashes: (n,) bytes, hashes of the pixels.
        shapes: (n, 2) int32, heights and widths.
    """

    def __init__(
        self, names: Names, *, sizes: np.ndarray, mtimes: np.ndarray, hashes: np.ndarray, shapes: np.ndarray
    ) -> None:
        self.names, self.sizes, self.mtimes, self.hashes, self.shapes = names, sizes, mtimes, hashes, shapes

    @classmethod
    def of(cls, records: Mapping[str, FileRecord]) -> "Records":
        """The columns of records by path."""
        if isinstance(records, Records):
            return records
        files = sorted(records)
        found = [records[file] for file in files]
        return cls(
            Names(files),
            sizes=np.array([record.size for record in found], dtype=np.int64),
            mtimes=np.array([record.mtime_ns for record in found], dtype=np.int64),
            hashes=np.array([record.hash.encode() for record in found], dtype=np.bytes_),
            shapes=np.array([record.shape for record in found], dtype=np.int32).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, file: str) -> FileRecord:
        try:
            number = self.names.index(file)
        except ValueError:
            raise KeyError(file) from None
        return self._record(number)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Records):
            return isinstance(other, Mapping) and self.as_dict() == dict(other)
        own, others = self.columns(), other.columns()
        return all(np.array_equal(own[name], others[name]) for name in own)

    __hash__ = None  # type: ignore[assignment]

    def _record(self, number: int) -> FileRecord:
        height, width = self.shapes[number].tolist()
        return FileRecord(
            int(self.sizes[number]), int(self.mtimes[number]), self.hashes[number].decode(), (height, width)
        )

    def as_dict(self) -> dict[str, FileRecord]:
        """The records as an ordinary dictionary, to look up most of them: one takes ten times the memory."""
        columns = (self.sizes.tolist(), self.mtimes.tolist(), self.hashes.tolist(), self.shapes.tolist())
        return {
            name: FileRecord(size, mtime, hash_.decode(), (height, width))
            for name, size, mtime, hash_, (height, width) in zip(self.names, *columns, strict=True)
        }

    def columns(self) -> dict[str, np.ndarray]:
        """The columns by name, to be stored."""
        return {
            "text": self.names.text,
            "ends": self.names.ends,
            "sizes": self.sizes,
            "mtimes": self.mtimes,
            "hashes": self.hashes,
            "shapes": self.shapes,
        }

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> "Records":
        """Records over stored columns, which are checked.

        Raises:
            ValueError: They do not fit together, or the paths are not text.
            KeyError: One is missing.
        """
        wrong = [name for name, kind in _TYPES.items() if columns[name].dtype.kind != kind]
        text, ends, count = columns["text"], columns["ends"], len(columns["ends"])
        lengths = {len(columns[name]) for name in _TYPES if name != "text"}
        if wrong or lengths != {count} or columns["shapes"].shape != (count, 2) or ends.ndim != 1 or text.ndim != 1:
            raise ValueError(f"the columns do not fit together {wrong}")
        _check_names(text, ends)
        fields = {name: columns[name] for name in ("sizes", "mtimes", "hashes", "shapes")}
        if any(column.ndim != 1 for name, column in fields.items() if name != "shapes"):
            raise ValueError("a column has two dimensions")
        return cls(Names.of(text, ends), **fields)


def _check_names(text: np.ndarray, ends: np.ndarray) -> None:
    """Checks that names end where characters do, one after the other, and are text.

    Raises:
        ValueError: They are not.
    """
    if not len(ends):
        if len(text):
            raise ValueError("there is text beyond the names")
        return
    if ends[0] < 0 or ends[-1] != len(text) or (ends[1:] < ends[:-1]).any():
        raise ValueError("the ends of the names are not in order")
    starts = ends[:-1][ends[:-1] < len(text)]
    if len(text) and ((text[starts] & 0xC0) == 0x80).any():
        raise ValueError("a name ends within a character")
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    for start in range(0, len(text), _CHUNK):
        decoder.decode(text[start : start + _CHUNK].tobytes(), final=start + _CHUNK >= len(text))
