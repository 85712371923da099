"""Colour tables of label maps: the forms that programs write, what is refused, and maps that are read by colour."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.annotations.colours import ColourTable, differing_palettes, find_table, read_table
from lit_splitmask.annotations.label_maps import read_map
from lit_splitmask.errors import UserError

COLOURS = ((0, 0, 0), (48, 112, 32), (176, 112, 32))
NAMES = ("background", "leaf", "old stem")
TABLE = ColourTable(NAMES, COLOURS, "table")

CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:48,112,32::\nold stem:176,112,32:a,b:c\n"
FORMS = {
    "cvat": CVAT,
    "csv": "name,r,g,b\nbackground,0,0,0\nleaf,48,112,32\n\nold stem,176,112,32\n",
    "spaced csv": "name, r, g, b\nbackground, 0, 0, 0\nleaf, 48, 112, 32\n\"old stem\", 176, 112, 32\n",
    "semicolons": "name;r;g;b\nbackground;0;0;0\nleaf;48;112;32\nold stem;176;112;32\n",
    "camvid": "0 0 0\tbackground\n48 112 32\t\tleaf\n176 112 32 old stem\n",
    "colours first": "r,g,b,name\n0,0,0,background\n48,112,32,leaf\n176,112,32,old stem\n",
    "windows": "\ufeffbackground:0,0,0\r\nleaf:48,112,32\r\nold stem:176,112,32\r\n",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_tables_are_read_in_the_forms_that_programs_write(form: str, tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_bytes(FORMS[form].encode())
    table = read_table(path)
    assert (table.names, table.colours) == (NAMES, COLOURS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:0,0,0\nb:0,0,0\n", r"names the colour \(0, 0, 0\) more than once"),
        ("a:0,0,0\na:1,0,0\n", "names the class a more than once"),
        ("a:0,0,0\nb:0,0,256\n", "'b:0,0,256' names no colour"),
        ("a:0,0,0\nb\n", "'b' names no colour"),
        ("a\nb\n", "names no colour. Write one class per line"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "table.txt")


def test_a_table_is_found_under_its_usual_names(tmp_path: Path) -> None:
    assert find_table(tmp_path, None) is None
    (tmp_path / "labelmap.txt").write_text("cat\ndog\n")  # names alone, as other programs write
    assert find_table(tmp_path, None) is None
    (tmp_path / "class_dict.csv").write_text(FORMS["csv"])
    table = find_table(tmp_path, None)
    assert table is not None
    assert table.names == NAMES
    (tmp_path / "labelmap.txt").write_text("background:1,1,1\n")
    with pytest.raises(UserError, match=r"name different classes or colours.*--data\.colours"):
        find_table(tmp_path, None)
    assert find_table(tmp_path, "class_dict.csv") == find_table(tmp_path, str(tmp_path / "class_dict.csv"))
    with pytest.raises(UserError, match="does not exist"):
        find_table(tmp_path, "other.csv")


def test_every_colour_becomes_its_class(tmp_path: Path) -> None:
    classes = np.random.default_rng(0).integers(0, 3, (17, 19))
    pixels = np.array(COLOURS, dtype=np.uint8)[classes]
    assert TABLE.to_values(pixels, "map").tolist() == classes.tolist()
    Image.fromarray(pixels).save(tmp_path / "map.png")
    assert read_map(tmp_path / "map.png", TABLE).tolist() == classes.tolist()


@pytest.mark.parametrize("shuffle", [(0, 1, 2), (2, 0, 1)])
def test_palettes_are_read_by_colour_with_a_table(shuffle: tuple[int, ...], tmp_path: Path) -> None:
    classes = np.random.default_rng(0).integers(0, 3, (17, 19))
    picture = Image.fromarray(np.argsort(shuffle)[classes].astype(np.uint8))
    picture.putpalette([channel for number in shuffle for channel in COLOURS[number]])
    picture.save(tmp_path / "map.png")
    assert read_map(tmp_path / "map.png", TABLE).tolist() == classes.tolist()
    assert read_map(tmp_path / "map.png").tolist() == np.argsort(shuffle)[classes].tolist()


def test_an_unknown_colour_is_named() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0, :3] = (9, 8, 7)
    pixels[1, 1] = (1, 1, 1)
    with pytest.raises(
        UserError, match=r"m\.png has the colour \(9, 8, 7\) in 3 pixels and 1 more colours, which table"
    ):
        TABLE.to_values(pixels, "m.png")


@pytest.mark.parametrize("name", ["Void", "unlabelled", "_ignore_"])
def test_a_class_called_void_is_known(name: str) -> None:
    assert ColourTable(("a", name), COLOURS[:2], "table").void == 1
    assert TABLE.void is None


def test_palettes_differ_where_a_value_has_two_colours() -> None:
    assert differing_palettes({"a": {0: (0, 0, 0), 1: (9, 9, 9)}, "b": {1: (9, 9, 9)}, "c": {2: (0, 0, 0)}}) is None
    assert differing_palettes({"a": {0: (0, 0, 0)}, "b": {1: (9, 9, 9)}, "c": {0: (1, 0, 0)}}) == (0, "a", "c")
