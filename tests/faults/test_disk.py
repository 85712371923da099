"""A disk that fills up, or that cannot be written to, costs no checkpoint and ends a run with one paragraph."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_runs import Fault, broken_checkpoints, call, first_command, outcome

LEVELS = range(1, 10)
"""Tenths of the space that a whole run takes."""

Mount = Callable[[str], None]


@pytest.fixture
def disk(place: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """Mounts a small disk of its own as the runs folder of ``place``: ``disk("size=1m")``, and again to change it."""
    runs, mounted = place / f"runs-{request.node.name.partition('[')[0]}-{os.getpid()}", False
    runs.mkdir(exist_ok=True)

    def mount(options: str) -> None:
        nonlocal mounted
        changed = f"remount,{options}" if mounted else options
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", changed, "tmpfs", str(runs)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
        mounted = True

    mount.runs = runs  # type: ignore[attr-defined]
    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(runs)], check=True)


def size_of(folder: Path) -> int:
    """The space that the files of a folder take, in whole pages, and one more checkpoint, written beside the old one."""
    sizes = [-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file()]
    return sum(sizes) + max(sizes)


def fill_and_go_on(level: int, place: Path, disk: Any, expected: Any, fault: Fault = Fault()) -> dict[str, Any]:  # noqa: B008
    """Trains on a disk of ``level`` tenths of what is needed, then gives it enough, and goes on."""
    whole = expected("pretrain")
    needed = size_of(place / "runs" / "whole-pretrain")
    log = place / "log.txt"
    log.unlink(missing_ok=True)
    disk(f"size={needed * level // 10}")
    where = ["--runs_dir", str(disk.runs)]
    code = call([*first_command("pretrain", "full"), *where], place, fault)
    said = log.read_text()
    files = sorted(path.name for path in disk.runs.rglob("*.ckpt"))
    broken = broken_checkpoints(disk.runs)
    left = [path.name for path in disk.runs.rglob("*.tmp")]
    disk(f"size={4 * needed}")
    resumable = (disk.runs / "full" / "config.yaml").is_file()
    words = ["pretrain", "--name", "full", "--resume"] if resumable else first_command("pretrain", "full")
    went_on = call([*words, *where], place, fault)
    same = went_on == 0 and outcome("pretrain", disk.runs / "full")[:3] == whole[:3]
    return {
        "code": code,
        "said": said,
        "files": files,
        "broken": broken,
        "left": left,
        "went_on": went_on,
        "same": same,
    }


def check(result: dict[str, Any], *, may_fit: bool = False) -> None:
    """Checks that the run ended in order, or that all fitted, and that it went on to the same files."""
    assert "Traceback" not in result["said"]
    if not (may_fit and result["code"] == 0):
        assert result["code"] == 1, result["said"]
        assert result["said"].count("error: ") == 1
        assert "No space left on device" in result["said"]
    assert result["broken"] == result["left"] == []
    assert result["went_on"] == 0
    assert result["same"]


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_a_disk_that_fills_up_leaves_a_whole_checkpoint(
    level: int, place: Path, disk: Mount, expected: Callable[[str], Any]
) -> None:
    check(fill_and_go_on(level, place, disk, expected), may_fit=level == max(LEVELS))


def test_a_disk_that_fills_up_half_way_leaves_a_whole_checkpoint(
    place: Path, disk: Mount, expected: Callable[[str], Any]
) -> None:
    result = fill_and_go_on(6, place, disk, expected)
    check(result)
    assert "last.ckpt" in result["files"]


def test_a_read_only_runs_folder_is_named_in_one_paragraph(place: Path, disk: Any) -> None:
    log = place / "log.txt"
    log.unlink(missing_ok=True)
    disk("size=1m")
    disk("ro")
    assert call([*first_command("pretrain", "x"), "--runs_dir", str(disk.runs)], place) == 1
    said = log.read_text()
    assert "Traceback" not in said
    assert f"{disk.runs}/x cannot be written (Read-only file system)" in said
    assert not list(disk.runs.iterdir())
