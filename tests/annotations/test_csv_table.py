"""CSV files as people save them."""

from pathlib import Path

import pytest

from lit_splitmask.annotations.csv_table import Table, read_table
from lit_splitmask.errors import UserError


def read(tmp_path: Path, content: str | bytes, encoding: str = "utf-8") -> Table:
    path = tmp_path / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return read_table(path)


PLAIN = "path,label\na.png,x\nb.png,y\n"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_in_the_header(separator: str, tmp_path: Path) -> None:
    table = read(tmp_path, PLAIN.replace(",", separator))
    assert table.header == ["path", "label"]
    assert table.rows == [["a.png", "x"], ["b.png", "y"]]
    assert bool(table.notes) == (separator != ",")


def test_commas_in_cells_do_not_hide_other_separators(tmp_path: Path) -> None:
    assert read(tmp_path, "path;label\na,1.png;x\n").rows == [["a,1.png", "x"]]
    assert read(tmp_path, 'path,label\n"a;1,2.png",x\n').rows == [["a;1,2.png", "x"]]


def test_excels_line_for_the_separator_is_skipped(tmp_path: Path) -> None:
    table = read(tmp_path, "sep=;\r\npath;label\r\na.png;x\r\n")
    assert (table.header, table.rows, table.lines) == (["path", "label"], [["a.png", "x"]], [3])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_a_mark_are_read(encoding: str, tmp_path: Path) -> None:
    table = read(tmp_path, PLAIN.replace("x", "é"), encoding)
    assert table.rows[0] == ["a.png", "é"]
    assert bool(table.notes) == (encoding == "utf-16")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN.replace("x", "é").encode("cp1252"), "not a CSV file in UTF-8.*iconv -f WINDOWS-1252"),
        (PLAIN.encode("utf-16-le"), "NUL characters, as UTF-16.*iconv -f UTF-16LE"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"path,label\na.png,x,y\n", "Row 2 of .* has 3 cells, but the header has 2"),
    ],
)
def test_other_files_are_refused_with_the_way(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, content)
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / "none.csv")


def test_empty_lines_and_cells_are_left_out_and_short_rows_filled(tmp_path: Path) -> None:
    table = read(tmp_path, "\npath,label,\n\n,,\na.png,x,\n b.png \n,,\n")
    assert table.header == ["path", "label"]
    assert table.rows == [["a.png", "x"], ["b.png", ""]]
    assert table.lines == [5, 6]
