"""Folders to run the commands in, with uninterrupted runs to compare with."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from faulty_runs import OTHER_DISK, call, first_command, outcome, write_images, write_recipes

Expected = Callable[[str], Any]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images ``shapes`` and the recipes."""
    folder = tmp_path_factory.mktemp("faults")
    write_images(folder / "shapes")
    write_recipes(folder)
    return folder


@pytest.fixture(scope="session")
def expected(place: Path) -> Expected:
    """The outcome of an uninterrupted run of a command, made once; its time is written to ``seconds-<command>``."""
    known: dict[str, Any] = {}

    def get(command: str) -> Any:
        if command not in known:
            started = time.monotonic()
            assert call(first_command(command, f"whole-{command}"), place) == 0, (place / "log.txt").read_text()
            (place / f"seconds-{command}").write_text(str(time.monotonic() - started))
            known[command] = outcome(command, place / "runs" / f"whole-{command}")
        return known[command]

    return get


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A folder on another file system than that of the tests."""
    if not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == Path.cwd().stat().st_dev:
        pytest.skip(f"{OTHER_DISK} is no other file system here")
    folder = OTHER_DISK / f"lit-splitmask-{uuid4().hex[:8]}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
