"""What a run is called if nobody names it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from jsonargparse import Namespace

from lit_splitmask.commands.training import run_folder


@pytest.mark.parametrize("typed", ["photos", "./photos/", "photos/../photos", "{here}/photos"])
def test_a_run_is_named_after_the_link_that_was_typed(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "2024-06").mkdir()
    (tmp_path / "photos").symlink_to("2024-06")
    monkeypatch.chdir(tmp_path)
    images = Namespace(root=typed.format(here=tmp_path))
    settings = Namespace(resume=False, runs_dir="runs", name=None, data=Namespace(init_args=images))
    with run_folder(cast(Any, SimpleNamespace(config=settings)), "pretrain") as folder:
        assert folder.path == Path("runs/pretrain-photos")
