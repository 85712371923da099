"""The processes of a run: how many a launcher started, what is asked of them, and errors that come from others."""

from pathlib import Path
from typing import Any

import pytest

import lit_splitmask.commands.recipes as recipes
from lit_splitmask.cli import COMMANDS, main
from lit_splitmask.commands.processes import ALONE, RANKS, Launched, launched
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import fit_to_launcher
from lit_splitmask.commands.run_folder import new_run
from lit_splitmask.commands.training import after_requeue
from lit_splitmask.errors import UserError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}
SLURM = {"SLURM_PROCID": "3", "SLURM_JOB_NAME": "splitmask", "SLURM_NNODES": "3", "SLURM_NTASKS": "6"}


@pytest.fixture(autouse=True)
def started_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM, *RANKS, "SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM])
def test_the_trainer_takes_processes_and_nodes_from_the_launcher(environment: dict[str, str]) -> None:
    assert launched(environment) == Launched(per_node=2, nodes=3)
    settings: dict[str, Any] = {"devices": "auto", "num_nodes": 1}
    fit_to_launcher(settings, environment)
    assert settings == {"devices": 2, "num_nodes": 3}
    given: dict[str, Any] = {"devices": 4, "num_nodes": 2}  # which Lightning checks
    fit_to_launcher(given, environment)
    assert given == {"devices": 4, "num_nodes": 2}


@pytest.mark.parametrize("environment", [{}, {**SLURM, "SLURM_JOB_NAME": "bash"}])
def test_a_process_that_was_started_alone_keeps_its_settings(environment: dict[str, str]) -> None:
    settings: dict[str, Any] = {"devices": "auto", "num_nodes": 1}
    fit_to_launcher(settings, environment)
    assert settings == {"devices": "auto", "num_nodes": 1}


def test_several_nodes_need_a_launcher() -> None:
    with pytest.raises(UserError, match=r"num_nodes is 2.*torchrun.*srun"):
        fit_to_launcher({"num_nodes": 2}, {})
    fit_to_launcher({"num_nodes": 2}, {"OMPI_COMM_WORLD_RANK": "0"})  # another launcher, which Lightning may know


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM])
def test_every_process_of_a_launcher_asks_for_a_name(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="--name NAME"), new_run(str(tmp_path / "runs"), None, "pretrain"):
        pass
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("launcher", ["SLURM", "TORCHELASTIC"])
def test_a_command_that_a_launcher_starts_again_goes_on_with_its_run(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request.read("pretrain", ["--data.root", "photos", "--name", "big", "--runs_dir", str(tmp_path)])
    monkeypatch.setenv(f"{launcher}_RESTART_COUNT", "0")
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "config.yaml").touch()
    assert not after_requeue(request).resume
    monkeypatch.setenv(f"{launcher}_RESTART_COUNT", "1")
    assert after_requeue(request).resume
    (tmp_path / "big" / "config.yaml").unlink()
    assert not after_requeue(request).resume


@pytest.mark.parametrize(("rank", "begins"), [("0", "error: "), ("3", "error (process 3): ")])
def test_an_error_says_which_process_it_comes_from(
    rank: str, begins: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert main(["pretrain", "--data.root", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith(begins)


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


@pytest.mark.parametrize("command", ALONE)
def test_a_command_of_a_single_process_refuses_those_of_torchrun(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert main([command, "photos"]) == 1
    assert f"{command} runs as a single process, but torchrun started several" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    main([command, "photos"])  # fails for another reason
    assert "torchrun" not in capsys.readouterr().err


def test_every_command_trains_or_runs_alone_or_concerns_no_images() -> None:
    trains = {"pretrain", "finetune", "reproduce", "fit", "validate", "test", "predict"}
    assert set(COMMANDS) == {*ALONE, *trains, "recipes", "completion"}
