import pytest

from lit_splitmask.images.names import Names

NAMES = sorted(["a/1.jpg", "", "b b.png", "漢字.jpg", "ü.jpg", "🦋/x.jpg", "not\udcff-utf8.jpg", "a/10.jpg"])


def test_names_are_a_sequence_of_strings() -> None:
    names = Names(NAMES)
    assert list(names) == NAMES
    assert len(names) == len(NAMES)
    assert names[-1] == NAMES[-1]
    assert list(names[1:5:2]) == NAMES[1:5:2]
    assert names == NAMES
    assert names != NAMES[:-1]
    assert "ü.jpg" in names
    with pytest.raises(IndexError):
        names[len(NAMES)]


def test_sorted_names_are_found_by_bisection() -> None:
    names = Names(NAMES)
    assert [names.index(name) for name in NAMES] == list(range(len(NAMES)))
    for missing in ("a/2.jpg", "~", "\U0010ffff"):
        with pytest.raises(ValueError, match="not among"):
            names.index(missing)


def test_names_may_be_empty() -> None:
    assert list(Names([])) == []
