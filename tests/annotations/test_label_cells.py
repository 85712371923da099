"""What the cells of a label column mean."""

import pytest

from lit_splitmask.annotations.label_cells import near_equal, several_labels, shared_words, unknown_markers


@pytest.mark.parametrize(
    "cells",
    [
        ["scab", "scab frog_eye", "healthy", "scab frog_eye rust"],
        ["scab", "rust", "scab rust"],
        ["cat dog", "dog cat", "bird"],
        ["3", "16 0", "7 1 2 0"],
        ["Cardiomegaly|Effusion", "Effusion"],
        ["a;b", "b;c"],
        ["rain, wind", "wind", "rain"],
        ["['cat', 'dog']", "['cat']"],
        ["[0, 1]", "[1, 0]"],
    ],
)
def test_several_labels_in_a_cell_are_found(cells: list[str]) -> None:
    found = several_labels(cells)
    assert found is not None
    assert found.certain
    assert found.example in cells
    assert len(found.parts) > 1


@pytest.mark.parametrize(
    "cells",
    [
        ["scab", "healthy", "scab rust", "scab mildew"],
        ["scab", "healthy", "scab rust", "scab rust mildew"],
        ["cat,dog", "dog,bird"],
        ["water tree", "water tree sky", "sky"],
    ],
)
def test_cells_that_may_be_either_are_found_as_such(cells: list[str]) -> None:
    found = several_labels(cells)
    assert found is not None
    assert not found.certain


@pytest.mark.parametrize(
    "cells",
    [
        ["cat", "dog"],
        ["golden retriever", "poodle", "border collie"],
        ["golden retriever", "labrador retriever", "retriever"],
        ["dog", "hot dog", "cat"],
        ["red car", "blue car", "red bus", "blue bus"],
        ["Quercus", "Quercus robur", "Quercus alba", "Rosa", "Rosa canina", "Rosa alba"],
        ["Paris, France", "Lyon, France", "Rome, Italy"],
        ["tench, Tinca tinca", "goldfish, Carassius auratus", "hen"],
        ["aircraft carrier", "airplane", "alarm clock", "clock", "baseball", "baseball bat"],
        ["Ram C/V Cargo Van Minivan 2012", "AM General Hummer SUV 2000"],
        ["", "a"],
        [],
    ],
)
def test_a_label_may_contain_a_separator(cells: list[str]) -> None:
    assert several_labels(cells) is None


def test_classes_that_hold_others_are_named_if_they_are_many() -> None:
    assert shared_words(["car", "red car", "bus"]) == ("red car", "car")
    assert shared_words(["car", "red car", "ice cream", "fire truck"]) is None
    assert shared_words(["car", "bus"]) is None


def test_nearly_equal_names_and_words_for_no_label_are_found() -> None:
    assert near_equal(["Cat", "cat", "hot dog", "hot_dog", "Hotdog", "dog"]) == [
        ["Cat", "cat"],
        ["Hotdog", "hot dog", "hot_dog"],
    ]
    assert near_equal(["1", "1.0", "2.0", "1.5"]) == [["1", "1.0"]]
    assert unknown_markers(["NaN", "cat", "?"]) == ["?", "NaN"]
