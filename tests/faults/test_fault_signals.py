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
from jsonargparse import Namespace
from tiny_runs import same_tensors

from lit_splitmask import cli
from lit_splitmask.commands.processes import Terminated, end_at_sigterm
from lit_splitmask.commands.run_folder import RunFolder, new_run
from lit_splitmask.commands.training import run_folder
from lit_splitmask.errors import UserError


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
    "setting",
    [
        "PYTHONIOENCODING=ascii",
        "PYTHONIOENCODING=latin-1",
        "LC_ALL=C",
        "LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
        "TMPDIR=/nowhere",
    ],
)
def test_other_encodings_and_no_temporary_folder_end_no_run(setting: str, place: Path) -> None:
    surroundings = dict(one.split("=") for one in setting.split())
    run = "läuft-" + setting.replace("/", "-").replace(" ", "-")
    command = [sys.executable, "-m", "lit_splitmask.cli", *first_command("finetune", run)]
    short = ["--data.budget.steps=3", "--data.num_epochs=1"]
    done = subprocess.run(
        [*command, *short], cwd=place, env={**_here(), **surroundings}, capture_output=True, check=False
    )
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
    assert "already running" in log.read_text()
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
    assert "last.ckpt is damaged or truncated. The newest intact checkpoint is" in log.read_text()
    assert outcome("pretrain", place / "runs" / name)[:3] == whole[:3]


def test_sigterm_before_the_first_step_says_that_nothing_was_saved_and_how_to_start_again(place: Path) -> None:
    log, run = place / "log.txt", place / "runs" / "before"
    log.unlink(missing_ok=True)
    words = first_command("pretrain", "before")
    process = start(words, place)
    wait_for(run.is_dir)
    process.terminate()
    code = finish(process)
    said = log.read_text()
    assert code == 143, said
    assert "Traceback" not in said
    assert "stopped by SIGTERM: before the first step, so nothing was saved. To start again:" in said
    assert f"  {shlex.join(['lit-splitmask', *words])}\n" in said
    assert not run.exists()  # its name is free again


def test_sigterm_says_which_command_to_run_whatever_was_under_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stopped(request: Any) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("went on")

    monkeypatch.setattr(cli, "_function", lambda command: stopped)
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        end_at_sigterm()
        for command, kept in (
            ("compare", "what it had finished is kept. The same command continues"),
            ("probe", "it had not finished. To start again"),
            ("finetune", "before the first step, so nothing was saved. To start again"),
        ):
            assert cli.main([command, "--data.root", str(tmp_path)]) == 143
            expected = f"stopped by SIGTERM: {kept}:\n  lit-splitmask {command} --data.root {tmp_path}\n"
            assert capsys.readouterr().err == expected
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_after_the_last_step_names_the_checkpoint_and_goes_on(
    place: Path,
) -> None:
    folder = RunFolder(tmp := place / "runs" / "after")
    folder.checkpoints.mkdir(parents=True)
    torch.save({"global_step": 3, "state_dict": {}}, folder.last)
    cli_of_run = Namespace(command="finetune", config=Namespace(resume=True, runs_dir=str(tmp.parent), name="after"))
    folder.config.touch()
    with pytest.raises(Terminated) as stop, run_folder(cli_of_run, "finetune"):
        raise Terminated
    assert stop.value.code == 143
    go_on = f"lit-splitmask finetune --runs_dir {tmp.parent} --name after --resume"
    assert stop.value.kept == f"{folder.last} is kept. To continue:\n  {go_on}"
    assert folder.last.exists()


POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_names_are_utf8_in_a_posix_locale_without_utf8_mode(place: Path) -> None:
    command = [sys.executable, "-m", "lit_splitmask.cli", "plan", "--data.root", "bärenörtchen-狐"]
    done = subprocess.run(command, cwd=place, env={**_here(), **POSIX}, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: The data folder bärenörtchen-狐 does not exist")


def test_a_name_of_a_run_that_is_not_utf8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"l\xe4uft")
    with pytest.raises(UserError, match=r"l\\xe4uft, is not UTF-8"), new_run(str(tmp_path / "runs"), name, "x"):
        pass
    assert not list(tmp_path.iterdir())
