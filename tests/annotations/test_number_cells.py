"""Numbers in the cells of a list."""

import logging
from pathlib import Path

import pytest

from lit_splitmask.annotations.manifest_rows import read_manifest
from lit_splitmask.annotations.number_cells import number_in
from lit_splitmask.errors import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("cell", "value"), [("3", 3.0), ("3.50", 3.5), ("-.5", -0.5), ("+2.", 2.0), ("1e-3", 0.001), ("-0", 0.0)]
)
def test_a_cell_is_read_as_its_number(cell: str, value: float) -> None:
    assert repr(number_in(cell)) == repr(value)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ('"3,5"', "has a comma: write numbers with a decimal point"),
        ('"1.234,5"', "has a comma"),
        ('"12,000"', "has a comma"),
        ("3.5 mm", "is not a number: write the number alone, without a unit"),
        ("NaN", "is not a number: .* or empty the cell if it is unknown"),
        ("inf", "is not a number"),
        ("1_000", "is not a number"),
        ("1e30", r"is beyond ±1e\+18"),
        ("1e999", r"is beyond ±1e\+18"),
    ],
)
def test_a_cell_without_a_number_is_refused_with_its_row(cell: str, why: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"image,wear\na.png,1\nb.png,{cell}\nc.png,2\n")
    with pytest.raises(UserError, match=rf"Row 3 of .* gives b.png '.*' in the column wear, which {why}"):
        read_manifest(path, target="wear")


def test_an_empty_cell_is_an_image_without_a_number_and_equal_numbers_are_one(tmp_path: Path) -> None:
    rows = read_manifest(write(tmp_path, "image,Wear\na.png,3\nb.png,\nc.png,3.0\nd.png,4\n"), target="wear")
    assert rows.labels == {"a.png": "3.0", "c.png": "3.0", "d.png": "4.0"}
    assert rows.files == ["a.png", "b.png", "c.png", "d.png"]


@pytest.mark.parametrize("column", ["class", "id", "split", "group", "is_test"])
def test_the_target_is_never_read_as_another_column(column: str, tmp_path: Path) -> None:
    rows = read_manifest(write(tmp_path, f"path,label,{column}\na.png,x,0\nb.png,y,1\n"), target=column)
    assert rows.labels == {"a.png": "0.0", "b.png": "1.0"}
    assert rows.files == ["a.png", "b.png"]
    assert not rows.splits
    assert not rows.groups


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("waer", "has no columns 'waer': name one with --data.target COLUMN; its columns of numbers are wear, depth"),
        ("", "needs to know which column to predict: name one with .* wear, depth"),
        ("same", r"The column same of .* has 7.0 for every image, so there is nothing to predict"),
        ("empty", "The column empty of .* holds no number"),
    ],
)
def test_a_column_that_cannot_be_the_target_is_refused(target: str, why: str, tmp_path: Path) -> None:
    path = write(tmp_path, "path,wear,depth,same,empty,word\na.png,1,3,7,,x\nb.png,2,4,7,,y\n")
    with pytest.raises(UserError, match=why):
        read_manifest(path, target=target)


@pytest.mark.parametrize(("column", "count"), [("label", 20), ("label", 19), ("price", 20)])
def test_classes_that_are_many_numbers_stay_classes_and_regression_is_named(
    column: str, count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = [f"{n}.png,{n % count / 2},{n % 3}" for n in range(60)]
    rows = read_manifest(write(tmp_path, f"path,{column},batch\n" + "\n".join(cells)))
    with caplog.at_level(logging.INFO):
        rows.report()
    if column == "label":
        assert len(set(rows.labels.values())) == count
    said = "20 different numbers, each of which is read as a separate class" in caplog.text
    assert said == (column == "label" and count == 20)
    assert ("finetune --task regress --data.manifest" in caplog.text) == said
