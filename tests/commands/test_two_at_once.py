"""Two commands at once never write one output: the second is refused before its work."""

from pathlib import Path
from typing import Any

import pytest

import lit_splitmask.reserved
from lit_splitmask.cli import main
from lit_splitmask.commands import convert_dalle, embed, probe, shard
from lit_splitmask.commands.compare.experiment import Comparison

COMMANDS = {
    "embed shapes --out e.npz": "e.npz",
    "probe shapes --out p": "p/probe.json",
    "shard shapes --out s": "s",
    "compare shapes --recipe compare_cpu --out c": "c",
    "convert-dalle --weights none.pkl --out d.safetensors": "d.safetensors",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_another_command_is_writing_is_refused(
    command: str, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def works(*_: Any, **__: Any) -> None:
        pytest.fail("it works on an output that another command is writing")

    works_in = [(embed.Frozen, "open"), (probe.Frozen, "open"), (shard, "write_shards"), (Comparison, "run")]
    for place, name in [*works_in, (convert_dalle, "read_encoder")]:
        monkeypatch.setattr(place, name, works)
    monkeypatch.setattr(lit_splitmask.reserved, "reserve", lambda path, **_: None)
    assert main(command.split()) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"{COMMANDS[command]} is being written by another command: wait for that, or give another" in said
