"""Errors that come from other processes of a run."""

import pytest

import lit_splitmask.commands.recipes as recipes
from lit_splitmask.cli import main

FULL = "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"
BUS = "DataLoader worker (pid 7) is killed by signal: Bus error."


def fail_with(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise RuntimeError(text)

    monkeypatch.setattr(recipes, "list_recipes", fail)


@pytest.mark.parametrize("text", [FULL, BUS])
def test_full_shared_memory_is_a_paragraph(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(text, monkeypatch)
    assert main(["recipes"]) == 1
    assert "--shm-size" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["an error of the program", "Broken pipe"])
def test_other_errors_of_a_single_process_are_not_hidden(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(text, monkeypatch)
    with pytest.raises(RuntimeError, match=text):
        main(["recipes"])
