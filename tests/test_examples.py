"""The scripts of ``examples/`` run as their docstrings say."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path, class_folder: Callable[..., Path]) -> None:
    class_folder(per_class=10, name="photos")
    command = re.search(rf"^    python examples/{path.name}(.*)$", path.read_text(), flags=re.MULTILINE)
    assert command is not None, "the docstring has no command"
    arguments = [*command.group(1).split(), "1"]  # one pass or epoch
    environment = {**os.environ, "PYTHONPATH": str(path.parents[1]), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    written = {
        "own_images": "backbone.safetensors",
        "two_processes": "backbone.safetensors",
        "own_module": "runs/denoise",
    }
    if path.stem in written:
        assert (tmp_path / written[path.stem]).exists()
    else:
        assert "accuracy" in run.stdout
