"""Several processes end together: at a loss of NaN on one, at SIGTERM to any, at the full disk of one, at an early stop."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_runs import LONG, broken_checkpoints, first_command, steps_done, wait_for

pytestmark = pytest.mark.slow

EARLY = (
    '--trainer.callbacks+={"class_path": "EarlyStopping", '
    '"init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 10}}'
)
"""Lightning's own callback, which stops after a validation."""

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]

SCRIPT = """
import errno, os, sys
import torch
torch.set_num_threads(1)
from lit_splitmask.callbacks import OverfitAwareCheckpoint
from lit_splitmask.modules.base import TrainModule
OverfitAwareCheckpoint.__init__.__kwdefaults__["most_cost"] = 1e9  # measures in a short run too
fault, rank = sys.argv[1], int(os.environ.get("LOCAL_RANK", "0"))
log_training = TrainModule.log_training

def logged(self, losses, *arguments, **settings):
    if fault == "nan" and rank == 1 and self.trainer.global_step == 4:
        losses = {**losses, "loss": losses["loss"] * float("nan")}
    if fault == "record" and not self.__dict__.get("log"):
        with open(f"losses-{rank}", "a") as file:
            file.write(f"{self.trainer.global_step} {losses['loss'].item()}\\n")
    if fault == "full" and rank == 0 and self.trainer.global_step == 4:
        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")
        os.fsync = fail
    log_training(self, losses, *arguments, **settings)

TrainModule.log_training = logged
from lit_splitmask import cli
run = cli._run

def run_after_noting_the_pid(arguments):  # signals are handled from here on
    with open("pids", "a") as file:
        file.write(f"{rank} {os.getpid()}\\n")
    return run(arguments[1:])  # Lightning starts the other process with the same arguments

cli._run = run_after_noting_the_pid
sys.exit(cli.main())
"""


def start_two(fault: str, words: list[str], place: Path) -> Any:
    """Starts a command with two processes; each adds its rank and id to ``pids``."""
    (place / "two.py").write_text(SCRIPT)
    for name in ("pids", "losses-0", "losses-1"):
        (place / name).unlink(missing_ok=True)
    command = [sys.executable, "two.py", fault, *words, *TWO]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=surroundings, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end(process: Any, seconds: float = 120) -> str:
    """Waits for a process; what it and the other one printed as errors."""
    _, said = process.communicate(timeout=seconds)
    return str(said)


def test_the_logged_loss_is_the_mean_over_the_processes(place: Path) -> None:
    process = start_two("record", first_command("pretrain", "mean"), place)
    said = end(process)
    assert process.returncode == 0, said
    with (place / "runs" / "mean" / "metrics.csv").open() as file:
        logged = {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}
    parts = [dict(line.split() for line in (place / f"losses-{rank}").read_text().splitlines()) for rank in (0, 1)]
    means = {step: (float(parts[0][str(step)]) + float(parts[1][str(step)])) / 2 for step in logged}
    assert len(logged) == 12
    assert parts[0] != parts[1]
    assert logged == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_nan_on_one_process_stops_both_with_the_message(command: str, place: Path) -> None:
    name = f"nan-{command}"
    process = start_two("nan", first_command(command, name), place)
    said = end(process, 60)
    assert process.returncode == 1
    assert "Traceback" not in said, said
    assert "The training loss became nan at step 4" in said
    assert torch.load(place / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.parametrize("to", ["first", "second", "all"])
def test_sigterm_stops_both_processes_in_the_same_step(to: str, place: Path) -> None:
    name = f"two-{to}"
    process = start_two("none", [*first_command("pretrain", name), *LONG, "--data.num_workers=1"], place)
    wait_for(lambda: steps_done(place / "runs" / name) > 4, 120)
    ids = dict(line.split() for line in (place / "pids").read_text().splitlines())
    if to == "all":
        os.killpg(process.pid, signal.SIGTERM)  # with the loaders' processes, as a container's end does
    else:
        os.kill(int(ids["0" if to == "first" else "1"]), signal.SIGTERM)
    said = end(process, 60)
    assert process.returncode == 143, said
    assert "Traceback" not in said, said
    assert f"--name {name} --resume" in said
    assert not broken_checkpoints(place / "runs" / name)
    assert list((place / "runs" / name).rglob("last.ckpt"))


@pytest.mark.parametrize("delay", [0.0, 1.0])
@pytest.mark.parametrize("to", ["first", "second"])
def test_sigterm_before_the_first_step_ends_both_processes_with_a_word(to: str, delay: float, place: Path) -> None:
    words = [*first_command("pretrain", f"before-{to}-{delay:g}"), *LONG]
    process = start_two("none", words, place)
    pids = place / "pids"
    wait_for(lambda: pids.is_file() and len(pids.read_text().splitlines()) == 2, 120)
    time.sleep(delay)
    ids = dict(line.split() for line in pids.read_text().splitlines())
    os.kill(int(ids["0" if to == "first" else "1"]), signal.SIGTERM)
    said = end(process, 60)
    assert "Traceback" not in said, said
    assert "stopped by SIGTERM" in said
    # Until the second process has connected, the first hears no signal, and Lightning kills it: the second has said why.
    assert process.returncode == 143 or (to == "second" and process.returncode == -signal.SIGKILL), said
    if process.returncode == 143:
        assert "lit-splitmask pretrain" in said


def test_the_full_disk_of_one_process_ends_both(place: Path) -> None:
    process = start_two("full", first_command("pretrain", "full-one"), place)
    said = end(process, 60)
    assert process.returncode == 1
    assert "No space left on device" in said
    assert "The previous one is intact: then resume the run." in said
    assert "Traceback" not in said, said
    last = place / "runs" / "full-one" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3


@pytest.mark.parametrize(
    ("command", "stopping"),
    [
        ("pretrain", "--trainer.callbacks+=OverfitAwareEarlyStopping"),
        (
            "finetune",
            EARLY,
        ),
    ],
)
def test_early_stopping_stops_both_processes(command: str, stopping: str, place: Path) -> None:
    name = f"early-{command}"
    longer = ["--data.budget.steps=240", "--data.num_epochs=80", "--model.optim.lr=0.01", stopping]
    process = start_two("none", [*first_command(command, name), *longer], place)
    said = end(process, 200)
    assert process.returncode == 0, said
    stopped = torch.load(place / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < 240
    selection = place / "runs" / name / "checkpoints" / "selection.json"
    assert stopped == (command == "finetune" or json.loads(selection.read_text())["stop"])
