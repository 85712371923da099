"""The notebook of ``examples/`` runs from its first cell to its last, and is committed without outputs."""

import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "digits.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_ends_with_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = (
        pytest.importorskip(name, reason="needs the extra notebook") for name in ("nbclient", "nbformat")
    )
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=3000, kernel_name="python3", resources=resources).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[-2].outputs)
    assert re.search(r"^(Worth it|Not worth it|No difference shown): ", said, flags=re.MULTILINE), said
    assert all((tmp_path / f"backbone{seed}.safetensors").exists() for seed in range(3))


def test_the_notebook_is_committed_without_outputs_and_without_local_paths() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"outputs": []' in text
    assert '"execution_count": null' in text
    assert not re.search(r'"outputs": \[[^\]]|"execution_count": \d|/home/|/Users/|/tmp/|/root/|C:\\\\', text)
