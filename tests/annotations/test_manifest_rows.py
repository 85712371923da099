"""Which columns of a CSV list are read, and how."""

import re
from collections import Counter
from pathlib import Path

import pytest

from lit_splitmask.annotations.manifest_rows import Rows, read_manifest
from lit_splitmask.errors import UserError


def read(tmp_path: Path, *lines: str, **settings: bool) -> Rows:
    path = tmp_path / "list.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_manifest(path, **settings)


def test_columns_are_found_by_name_in_any_case(tmp_path: Path) -> None:
    rows = read(tmp_path, "Path , LABEL,Split,Group", "1.png,a,Training,p", "2.png,b,TEST,q", "3.png,b,valid,q")
    assert rows == Rows(
        files=["1.png", "2.png", "3.png"],
        labels={"1.png": "a", "2.png": "b", "3.png": "b"},
        splits={"1.png": "train", "2.png": "test", "3.png": "val"},
        groups={"1.png": "p", "2.png": "q", "3.png": "q"},
        lines={"1.png": 2, "2.png": 3, "3.png": 4},
    )


@pytest.mark.parametrize("path", ["file_name", "Image", "image_id", "ID", "File Name", "img", "Image Index", "scan"])
@pytest.mark.parametrize("label", ["class", "Target", "category", "label_name", "species"])
def test_columns_are_found_by_other_names(path: str, label: str, tmp_path: Path) -> None:
    rows = read(tmp_path, f"{label},{path}", "a,1.png", "b,2.png")
    assert (rows.files, rows.labels) == (["1.png", "2.png"], {"1.png": "a", "2.png": "b"})
    assert f"The label is read from the column {label!r}." in rows.notes


def test_the_usual_name_comes_first(tmp_path: Path) -> None:
    rows = read(tmp_path, "id,class,path,label", "1,x,1.png,a", "2,x,2.png,b")
    assert (rows.files, rows.labels) == (["1.png", "2.png"], {"1.png": "a", "2.png": "b"})
    assert rows.other_columns == ["id", "class"]
    assert "Columns that are not used: id, class." in rows.notes


def test_of_equal_columns_that_with_names_is_read(tmp_path: Path) -> None:
    rows = read(tmp_path, "path,class_id,class_name", "1.png,0,a", "2.png,1,b", "3.png,0,a")
    assert set(rows.labels.values()) == {"a", "b"}


@pytest.mark.parametrize("name", ["set", "subset", "partition", "fold", "Dataset_type", "group"])
def test_a_column_of_splits_is_found_by_its_values(name: str, tmp_path: Path) -> None:
    rows = read(tmp_path, f"path,{name}", "1.png,train", "2.png,Test_Set", "3.png,dev")
    assert list(rows.splits.values()) == ["train", "test", "val"]
    assert rows.groups == {}
    assert rows.notes == [f"The split is read from the column {name!r}."]


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("fold", "0123", r"its values \(0, 1, 2, …\) are not names of splits"),
        ("partition", "001", r"its values \(0, 1\)"),
        ("Usage", ["Training", "PublicTest", "PrivateTest"], "PrivateTest, PublicTest"),
        ("kind", ["train", "spare"], "spare"),
        ("test", "0123", "are not names of splits"),
    ],
)
def test_a_column_that_looks_like_a_split_is_never_ignored_in_silence(
    name: str, values: str, why: str, tmp_path: Path
) -> None:
    rows = read(tmp_path, f"path,{name}", *(f"{number}.png,{value}" for number, value in enumerate(values)))
    assert rows.splits == {}
    (warning,) = rows.warnings
    assert re.search(f"column {name} looks like a split but is not used: .*{why}", warning)


def test_a_second_split_is_named_and_others_that_differ_are_refused(tmp_path: Path) -> None:
    rows = read(tmp_path, "path,split,set", "1.png,train,train", "2.png,test,train")
    assert list(rows.splits.values()) == ["train", "test"]
    assert "The column set looks like a split but is not used: another column is the split" in rows.warnings[0]
    with pytest.raises(UserError, match="may be the split, and their values differ: set, subset"):
        read(tmp_path, "path,set,subset", "1.png,train,train", "2.png,test,train", "3.png,val,test")


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [
        ("is_valid", ["True", "False"], ["val", "train"]),
        ("isTest", ["1", "0"], ["test", "train"]),
        ("is_training_image", ["1", "0"], ["train", "test"]),
        ("is_train,is_val,is_test", ["1,0,0", "0,1,0", "0,0,1"], ["train", "val", "test"]),
    ],
)
def test_flags_give_the_split(header: str, cells: list[str], expected: list[str], tmp_path: Path) -> None:
    rows = read(tmp_path, f"path,{header}", *(f"{number}.png,{cell}" for number, cell in enumerate(cells)))
    assert list(rows.splits.values()) == expected
    with pytest.raises(UserError, match=r"Row 2 .* is in [02] splits"):
        read(tmp_path, "path,is_train,is_test", "1.png,1,1" if len(cells) == 2 else "1.png,0,0")


def test_a_column_that_may_be_the_label_is_suggested(tmp_path: Path) -> None:
    lines = "path,dx,age,patient", *(f"{number}.png,{'ab'[number % 2]},{number},{number % 2}" for number in range(6))
    rows = read(tmp_path, *lines)
    assert rows.labels == {}
    assert rows.warnings[-1] == "No column is read as the label: if dx holds the classes, call that column label."
    assert not any("label" in line for line in read(tmp_path, *lines, use_labels=False).warnings)
    assert not any("label" in line for line in read(tmp_path, "path,age", "1.png,3", "2.png,4").warnings)


def test_a_column_of_patients_is_suggested_as_group(tmp_path: Path) -> None:
    rows = read(tmp_path, "path,patient_id", "1.png,7", "2.png,8")
    assert rows.groups == {}
    assert rows.warnings == [
        "The column patient_id is not used: call it group to keep all images with the same patient_id in one split."
    ]
    assert not read(tmp_path, "path,group,patient_id", "1.png,7,7", "2.png,8,8").warnings


def test_one_column_for_each_class_is_read(tmp_path: Path) -> None:
    rows = read(tmp_path, "image,healthy,rust,scab,age", "1.png,1,0,0,30", "2.png,0.0,1.0,0.0,0", "3.png,,,,1")
    assert rows.labels == {"1.png": "healthy", "2.png": "rust"}
    assert rows.unlabelled == ["3.png"]
    assert "The label is read from 3 columns of 0 and 1: healthy, rust, scab." in rows.notes
    assert rows.other_columns == ["age"]
    labelled = read(tmp_path, "path,label,old,male", "1.png,a,1,1", "2.png,b,0,1")
    assert labelled.other_columns == ["old", "male"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["path,rust,scab", "1.png,1,0", "2.png,1,1"],
            "Row 3 .* columns rust and scab: one label per image .*labels several",
        ),
        (["path,rust,scab", "1.png,1,0", "2.png,0,0"], "Row 3 .* has no 1 in the columns rust, scab"),
        (
            ["path,label", "1.png,a", "2.png,a|b"],
            "Row 3 .* 2.png several labels, 'a' and 'b'.* pass --data.splits.labels several",
        ),
        (["path,label", "1.png,a", "2.png,a b", "3.png,a c"], "two ways: 'a b' .row 3. may be one class.*'a_b'"),
    ],
)
def test_several_labels_of_an_image_are_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, *lines)
    assert "--data.splits.labels none" in str(error.value)
    assert read(tmp_path, *lines, use_labels=False).labels == {}


def test_phrases_are_classes(tmp_path: Path) -> None:
    rows = read(tmp_path, "path,label", "1.png,golden retriever", "2.png,poodle")
    assert set(rows.labels.values()) == {"golden retriever", "poodle"}
    assert not rows.warnings


def test_doubtful_class_names_are_named(tmp_path: Path) -> None:
    rows = read(tmp_path, "path,label", "1.png,Cat", "2.png,cat ", "3.png,nan", "4.png,red cat")
    assert Counter(rows.labels.values()) == {"Cat": 1, "cat": 1, "nan": 1, "red cat": 1}
    assert [line[:32] for line in rows.warnings] == [
        "The classes 'Cat' and 'cat' have",
        "There is a class 'nan': if these",
        "The class 'red cat' contains the",
    ]


def test_names_that_are_equal_in_unicode_are_one_class(tmp_path: Path) -> None:
    rows = read(tmp_path, "path,label", "1.png,cafe\u0301", "2.png,caf\u00e9")
    assert set(rows.labels.values()) == {"caf\u00e9"}


def test_images_of_the_split_unlabelled_are_for_training_without_their_labels(tmp_path: Path) -> None:
    rows = read(tmp_path, "path,label,split", "1.png,a,train", "2.png,b,unlabelled", "3.png,a,test")
    assert rows.splits == {"1.png": "train", "2.png": "train", "3.png": "test"}
    assert rows.unlabelled == ["2.png"]
    assert "The labels of 1 images are not used" in rows.notes[0]
