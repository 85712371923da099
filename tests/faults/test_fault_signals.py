"""SIGTERM, SLURM's requeueing, a terminal that goes away, and output that nobody reads."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_runs import LONG, call, finish, first_command, outcome, start, steps_done, wait_for
from tiny_runs import same_tensors


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_sigterm_ends_training_with_143_a_checkpoint_and_the_command_that_goes_on(command: str, place: Path) -> None:
    name, log = f"term-{command}", place / "log.txt"
    log.unlink(missing_ok=True)
    process = start([*first_command(command, name), *LONG], place)
    wait_for(lambda: steps_done(place / "runs" / name) > 4)
    process.terminate()
    assert finish(process) == 143
    last = place / "runs" / name / "checkpoints" / "last.ckpt"
    assert step_of(last) >= 2
    said = log.read_text()
    assert "Traceback" not in said
    assert f"stopped by SIGTERM at step {step_of(last):,}" in said
    assert f"lit-splitmask {command} --name {name} --resume" in said


def test_a_run_that_sigterm_stopped_within_an_epoch_goes_on_to_the_same_files(
    place: Path, expected: Callable[[str], Any]
) -> None:
    whole = expected("finetune")
    process = start(first_command("finetune", "within"), place)
    wait_for(lambda: steps_done(place / "runs" / "within") > 3)
    process.terminate()
    code = finish(process)
    assert code in (0, 143)
    if code == 143:
        assert call(["finetune", "--name", "within", "--resume"], place) == 0
    assert outcome("finetune", place / "runs" / "within") == whole


SLURM = {
    "SLURM_JOB_ID": "123",
    "SLURM_JOB_NAME": "splitmask",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
}


@pytest.mark.slow
def test_a_job_that_slurm_requeues_goes_on_to_the_same_files(place: Path, expected: Callable[[str], Any]) -> None:
    expected("pretrain")
    tools = place / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tools}/asked\n')
    (tools / "scontrol").chmod(0o755)
    slow = place / "sitecustomize.py"
    slow.write_text(SLOW_STEPS)
    surroundings = {
        **os.environ,
        **SLURM,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": f"{place}:{os.environ.get('PYTHONPATH', '')}",
    }
    command = [sys.executable, "-m", "lit_splitmask.cli", *first_command("pretrain", "job")]
    run = place / "runs" / "job"
    with subprocess.Popen(command, cwd=place, env=surroundings, stderr=subprocess.PIPE, text=True) as job:
        wait_for(lambda: steps_done(run) > 4, 120)
        job.send_signal(signal.SIGUSR1)
        wait_for((tools / "asked").is_file)
        job.terminate()
        _, said = job.communicate(timeout=60)
        assert job.returncode == 143, said
    slow.unlink()
    assert (tools / "asked").read_text() == "requeue 123\n"
    assert step_of(run / "hpc_ckpt_1.ckpt") >= 1
    again = subprocess.run(command, cwd=place, env={**surroundings, "SLURM_RESTART_COUNT": "1"}, check=False)
    assert again.returncode == 0
    states = [
        torch.load(each / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for each in (run, place / "runs" / "whole-pretrain")
    ]
    assert same_tensors(*states)


SLOW_STEPS = """
import os, sys, time
def wait(name, values):
    if name == "open" and str(values[0]).endswith("metrics.csv"):
        time.sleep(0.2)
sys.addaudithook(wait)
"""


def test_a_run_goes_on_if_nobody_reads_its_output_and_its_terminal_goes_away(place: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "lit_splitmask.cli", *first_command("pretrain", "alone")]
    with subprocess.Popen(command, cwd=place, stdout=writing, stderr=writing, env=_here()) as process:
        os.close(writing)
        wait_for(lambda: steps_done(place / "runs" / "alone") > 3, 120)
        process.send_signal(signal.SIGHUP)
        assert process.wait(120) == 0
    assert (place / "runs" / "alone" / "backbone.safetensors").is_file()
    assert steps_done(place / "runs" / "alone") > 6


@pytest.mark.slow
def test_a_run_goes_on_if_its_output_is_closed_from_the_start(place: Path) -> None:
    command = shlex.join([sys.executable, "-m", "lit_splitmask.cli", *first_command("pretrain", "closed")])
    assert subprocess.run(f"{command} >&- 2>&-", shell=True, cwd=place, env=_here(), check=False).returncode == 0
    assert (place / "runs" / "closed" / "backbone.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", ["PYTHONIOENCODING=ascii", "PYTHONIOENCODING=latin-1", "LC_ALL=C", "TMPDIR=/nowhere"]
)
def test_other_encodings_and_no_temporary_folder_end_no_run(setting: str, place: Path) -> None:
    name, _, value = setting.partition("=")
    run = "läuft-" + setting.replace("/", "-")
    command = [sys.executable, "-m", "lit_splitmask.cli", *first_command("finetune", run)]
    short = ["--data.budget.steps=3", "--data.num_epochs=1"]
    done = subprocess.run([*command, *short], cwd=place, env={**_here(), name: value}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    assert (place / "runs" / run / "classifier.safetensors").is_file()


def _here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}


def test_of_two_runs_started_at_once_without_a_name_the_second_takes_a_free_one(place: Path) -> None:
    words = [word for word in first_command("pretrain", "x") if word not in ("--name", "x")]
    both = [start([*words, "--data.budget.steps=3", "--data.num_epochs=1"], place) for _ in range(2)]
    assert [finish(process) for process in both] == [0, 0]
    finished = {path.parent.name for path in (place / "runs").glob("pretrain-shapes*/backbone.safetensors")}
    assert finished == {"pretrain-shapes", "pretrain-shapes-2"}


def test_a_run_is_not_resumed_while_it_runs(place: Path) -> None:
    process = start([*first_command("pretrain", "busy"), *LONG], place)
    wait_for(lambda: steps_done(place / "runs" / "busy") > 1)
    log = place / "log.txt"
    log.unlink(missing_ok=True)
    assert call(["pretrain", "--name", "busy", "--resume"], place) == 1
    assert "running already" in log.read_text()
    process.kill()
    process.join()
    assert not list((place / "runs" / "busy").rglob("*.ckpt"))  # killed before its first checkpoint
    short = ["--data.budget.steps=3", "--data.num_epochs=1"]
    assert call([*first_command("pretrain", "busy"), *short], place) == 0
    assert json.loads((place / "runs" / "busy" / "checkpoints" / "selection.json").read_text())["step"] == 3


def test_a_run_killed_before_its_first_checkpoint_is_resumed_from_its_beginning(
    place: Path, expected: Callable[[str], Any]
) -> None:
    whole = expected("pretrain")
    process = start(first_command("pretrain", "early"), place)
    wait_for((place / "runs" / "early" / "config.yaml").is_file)
    process.kill()
    process.join()
    assert call(["pretrain", "--name", "early", "--resume"], place) == 0
    assert outcome("pretrain", place / "runs" / "early") == whole


@pytest.mark.parametrize("size", [0, 1000])
def test_a_partial_last_checkpoint_does_not_block_a_resume(
    size: int, place: Path, expected: Callable[[str], Any]
) -> None:
    whole = expected("pretrain")
    name = f"partial-{size}"
    assert call([*first_command("pretrain", name), "--data.budget.steps=12"], place) == 0
    last = place / "runs" / name / "checkpoints" / "last.ckpt"
    whole_last = last.read_bytes()
    last.unlink()
    last.write_bytes(whole_last[:size])
    log = place / "log.txt"
    log.unlink()
    assert call(["pretrain", "--name", name, "--resume"], place) == 0
    assert "last.ckpt is damaged or truncated. The newest whole checkpoint is" in log.read_text()
    assert outcome("pretrain", place / "runs" / name)[:3] == whole[:3]
