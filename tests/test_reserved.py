"""A name that one process holds is free for no other, until it has its output or its process ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from lit_splitmask.errors import UserError
from lit_splitmask.reserved import reserve, reserved

HOLDS = """
import sys
from pathlib import Path
from lit_splitmask.reserved import reserve
held = reserve(Path(sys.argv[1]))
print(held is not None, flush=True)
sys.stdin.read()
"""


def test_a_name_that_another_process_holds_is_not_free_until_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.csv"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert reserve(path) is None
        assert not path.exists()  # nothing has the name before it is complete
        for may_exist in (False, True):
            with (
                pytest.raises(UserError, match=r"out\.csv is being written by another command: wait for that, or give"),
                reserved(path, "give another", may_exist=may_exist),
            ):
                pytest.fail("the name was free")
        other.kill()
    mine = reserve(path)
    assert mine is not None
    mine.release()
    assert not list((tmp_path / "new").iterdir())


def test_a_name_that_something_has_is_not_free_and_an_empty_folder_is(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    mine = reserve(path)
    assert mine is not None
    mine.release()
    (path / "map.png").touch()
    assert reserve(path) is None
    (tmp_path / "link").symlink_to("nothing")
    assert reserve(tmp_path / "link") is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "out"]


def test_a_release_leaves_no_folder_that_was_made_for_nothing(tmp_path: Path) -> None:
    mine = reserve(tmp_path / "a" / "b" / "out.csv")
    assert mine is not None
    mine.release()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_of_a_folder_is_removed(tmp_path: Path) -> None:
    for name in ("maps.0123456789ab.tmp", "maps-2.0123456789ab.tmp", "maps.tmp"):
        (tmp_path / name).mkdir()
    mine = reserve(tmp_path / "maps")
    assert mine is not None
    mine.release()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["maps-2.0123456789ab.tmp", "maps.tmp"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/out.csv cannot be written \(.*\), so nothing was written"):
        reserve(tmp_path / "file" / "out.csv")


def test_a_reserved_name_that_exists_is_refused_unless_it_may_exist(tmp_path: Path) -> None:
    (tmp_path / "out.npz").touch()
    with (
        pytest.raises(UserError, match=r"out\.npz already exists: give another"),
        reserved(tmp_path / "out.npz", "give another"),
    ):
        pytest.fail("the name was free")
    with reserved(tmp_path / "out.npz", "give another", may_exist=True):
        assert (tmp_path / ".out.npz.lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_the_current_folder_can_be_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with reserved(Path(), "give another"):
        assert (tmp_path / ".here.lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
