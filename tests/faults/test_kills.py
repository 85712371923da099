"""Runs that are killed at any moment go on to the same weights, the same choice of a checkpoint and the same table."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_runs import Fault, broken_checkpoints, call, first_command, kill_after, next_command, outcome, start

COMMANDS = ["pretrain", "finetune", "compare"]


@pytest.mark.parametrize("event", [2, 30])
def test_a_pretraining_killed_at_a_file_event_goes_on_to_the_same_files(
    event: int, place: Path, other_disk: Path, expected: Callable[[str], Any]
) -> None:
    whole = expected("pretrain")
    name = f"event-{event}"
    assert call(first_command("pretrain", name), place, Fault(event, other_disk)) == -9
    assert not broken_checkpoints(place / "runs" / name)
    assert call(next_command("pretrain", name, place), place) == 0, (place / "log.txt").read_text()
    assert outcome("pretrain", place / "runs" / name) == whole
    assert not list((place / "runs" / name).rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["same", "other"])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_killed_at_a_random_moment_goes_on_to_the_same_files(
    command: str, seed: int, disk: str, place: Path, expected: Callable[[str], Any], request: pytest.FixtureRequest
) -> None:
    whole = expected(command)
    temporary = request.getfixturevalue("other_disk") if disk == "other" else None
    generator, name = random.Random(f"{command} {seed} {disk}"), f"{command}-{seed}-{disk}"
    seconds = float((place / f"seconds-{command}").read_text())  # of the uninterrupted run
    for kill in range(generator.choice([1, 1, 1, 2, 3])):  # some several times
        words = first_command(command, name) if kill == 0 else next_command(command, name, place)
        kill_after(start(words, place, Fault(temporary=temporary)), generator.uniform(0.05, 1) * seconds)
        assert not broken_checkpoints(place / "runs" / name)
    if not _is_finished(command, place / "runs" / name):
        words = next_command(command, name, place)
        assert call(words, place, Fault(temporary=temporary)) == 0, (place / "log.txt").read_text()[-3000:]
    assert outcome(command, place / "runs" / name) == whole


def _is_finished(command: str, run: Path) -> bool:
    last = {"pretrain": "codebook.safetensors", "finetune": "predict.yaml", "compare": "comparison.md"}
    return (run / last[command]).is_file()
