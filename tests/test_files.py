"""Files are written completely or not at all, and JSON has no NaN."""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lit_splitmask.cli import main
from lit_splitmask.errors import UserError
from lit_splitmask.files import (
    link_or_copy,
    lock,
    open_partial,
    partial_name,
    read_lines,
    remove_abandoned,
    without_nan,
    write_atomically,
    write_json,
)


def test_a_file_is_written_with_its_folders_and_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    write_atomically(path, b"abc")
    write_atomically(str(path), b"defg")
    assert path.read_bytes() == b"defg"
    assert os.listdir(path.parent) == ["file.bin"]
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_folder_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, old: bytes | None
) -> None:
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(UserError, match="no space"):
        write_atomically(path, b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if old is None else [old])


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file.bin", b"new")
    assert list(tmp_path.iterdir()) == []


def test_temporary_names_are_unique_and_in_the_same_folder(tmp_path: Path) -> None:
    names = {partial_name(tmp_path / "file.bin") for _ in range(100)}
    assert len(names) == 100
    assert {name.parent for name in names} == {tmp_path}


@pytest.mark.parametrize("has_links", [True, False])
def test_a_second_name_survives_the_replacement_of_the_first(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("links are not supported")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    first, second = tmp_path / "first", tmp_path / "second"
    write_atomically(first, b"old")
    link_or_copy(first, second)
    write_atomically(first, b"new")
    assert (first.read_bytes(), second.read_bytes()) == (b"new", b"old")


def test_a_copy_is_never_written_into_a_file_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, other_name = tmp_path / "source", tmp_path / "target", tmp_path / "other"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    os.link(target, other_name)
    link_or_copy(source, target)
    assert (target.read_bytes(), other_name.read_bytes()) == (b"new", b"old")


HOLD = """
import sys, time
from pathlib import Path
from lit_splitmask.files import lock, open_partial
path = Path(sys.argv[1])
held = open_partial(path), lock(path.with_name("lock"))
print("held", flush=True)
time.sleep(60)
"""


def test_files_and_locks_of_a_process_are_its_own_until_it_is_killed(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "file.bin")], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == "held\n"
        remove_abandoned(tmp_path)
        assert len(list(tmp_path.glob("file.bin.*.tmp"))) == 1
        assert lock(tmp_path / "lock") is None
        other.kill()
    held = lock(tmp_path / "lock")
    assert held is not None
    held.close()
    remove_abandoned(tmp_path, "other")
    assert len(list(tmp_path.glob("*.tmp"))) == 1
    remove_abandoned(tmp_path, "file")
    assert not list(tmp_path.glob("*.tmp"))


def test_only_files_with_temporary_names_are_removed(tmp_path: Path) -> None:
    mine = [tmp_path / name for name in ("notes.tmp", "file.0123456789ab.tmp.txt", "file.0123456789AB.tmp")]
    for path in mine:
        path.write_bytes(b"")
    partial, file = open_partial(tmp_path / "file")
    file.close()
    remove_abandoned(tmp_path)
    assert not partial.exists()
    assert all(path.exists() for path in mine)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file/new\.bin cannot be written"):
        write_atomically(tmp_path / "file" / "new.bin", b"new")


def test_nan_and_infinities_become_none_at_any_depth() -> None:
    value = {"a": [1.5, math.nan, {"b": (math.inf, -math.inf, 0.0)}], "c": math.nan, "d": "nan", "e": True, "f": 3}
    expected = {"a": [1.5, None, {"b": [None, None, 0.0]}], "c": None, "d": "nan", "e": True, "f": 3}
    assert without_nan(value) == expected
    assert math.isnan(value["c"])  # type: ignore[arg-type]


def test_a_json_file_is_strict(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    write_json(tmp_path / "a.json", {"x": math.nan, "y": [1, 2.5], "z": "é"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == {"x": None, "y": [1, 2.5], "z": "é"}


@pytest.mark.parametrize("data", [b"a\n b \n\nc", b"\xef\xbb\xbfa\r\n b\r\n\r\nc\r\n", b"a\rb\r\r c"])
def test_lines_are_read_with_any_line_endings(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    assert read_lines(tmp_path / "list.txt") == ["a", "b", "c"]


def test_a_list_that_is_missing_or_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list .*none\.txt does not exist"):
        read_lines(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("Straße".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.txt is not UTF-8"):
        read_lines(tmp_path / "latin.txt")


def test_without_a_folder_for_temporary_files_a_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    assert main(["recipes"]) == 1
    error = capsys.readouterr().err
    assert "No usable temporary directory found in ['/nowhere']" in error
    assert "set the environment variable TMPDIR" in error
