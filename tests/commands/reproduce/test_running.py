"""What is finished is not run again, what was interrupted goes on, and several seeds are averaged. No training runs here."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from replicas import REPLICAS, cars, imagenet

from lit_splitmask.cli import main
from lit_splitmask.commands.reproduce import report, running
from lit_splitmask.commands.reproduce.scores import Score
from lit_splitmask.commands.reproduce.stages import Setting
from lit_splitmask.datamodules.paper_rows import Row, paper_tables

ROW = ["reproduce", "table6", "--row=splitmask-s-cars", "--data.root=images", "--scale=0.01"]
PRETRAINED, FINETUNED = "splitmask-cars-s-seed0", "splitmask-cars-s-on-cars-seed0"


class Commands:
    """Stands for the processes of the commands: notes them, and writes what the tests need of their files."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.accuracies = [0.5, 0.7]
        self.fail: Callable[[list[str]], int] = lambda arguments: 0

    def __call__(self, arguments: list[str]) -> int:
        self.calls.append(arguments)
        values = dict(word.removeprefix("--").split("=", 1) for word in arguments if "=" in word)
        folder = Path(values.get("runs_dir", ".")) / values.get("name", "x")
        folder.mkdir(parents=True, exist_ok=True)
        if code := self.fail(arguments):
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / "last.ckpt").touch()
            return code
        if arguments[0] == "finetune":
            scores = {"test/accuracy": self.accuracies.pop(0)}
            found = {"scores": scores, "classes": ["a", "b"], "confusion": [[1, 2], [0, 1]]}
            (folder / "test.json").write_text(json.dumps(found))
        return 0

    @property
    def names(self) -> list[str]:
        return [next(word for word in call if word.startswith("--name="))[7:] for call in self.calls]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The current directory holds Stanford Cars as ``images``."""
    monkeypatch.chdir(tmp_path)
    cars(tmp_path / "images")
    stand_in = Commands()
    monkeypatch.setattr(running, "run_command", stand_in)
    return stand_in


def entry(folder: str = "runs/reproduce-scale0.01") -> dict[str, dict[str, Any]]:
    return dict(json.loads((Path(folder) / "results.json").read_text())["table6/splitmask-s-cars"]["scores"])


def test_the_measured_number_stands_beside_the_papers(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ROW) == 0
    assert commands.names == [PRETRAINED, FINETUNED]
    found = entry()["top-1"]
    assert (found["paper"], found["mean"], found["sd"], found["seeds"]) == (92.8, 50.0, None, {"0": 50.0})
    assert found["intervals"]["0"] == pytest.approx((15.0, 85.0), abs=0.1)
    printed = capsys.readouterr().out
    assert "│ top-1 │ 92.8     │ 50.0        │ 15.0 to 85.0  │ -42.8" in printed
    assert "Chance: 50.0 % by guessing among 2 classes, 75.0 % by always answering a, the most frequent." in " ".join(
        printed.split()
    )
    assert "Trained for 0.01 times the paper's length, so the numbers cannot be compared." in printed


def test_long_names_of_scores_stay_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row, setting = paper_tables()["figure6"].rows["splitmask"], Setting(out=str(tmp_path))
    found = report.write_results(row, {score: {0: Score(50.0, (15.0, 85.0))} for score in row.paper}, [], setting)
    report.show_results(row, found, "", setting)
    assert "│ top-1 after 45,000 │" in capsys.readouterr().out


def test_seeds_have_trainings_of_their_own_and_are_averaged(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ROW, "--seeds=0,3"]) == 0
    assert commands.names == [
        PRETRAINED,
        FINETUNED,
        *(name.replace("seed0", "seed3") for name in (PRETRAINED, FINETUNED)),
    ]
    assert all(f"--model.seed={seed}" in call for seed, call in zip("0033", commands.calls, strict=True))
    assert entry()["top-1"]["mean"] == pytest.approx(60)
    assert entry()["top-1"]["sd"] == pytest.approx(200**0.5)
    assert "60.0 ± 14.1" in capsys.readouterr().out


def test_two_commands_at_once_lose_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, write, others = list(paper_tables()["table6"].rows.values())[:2], report.write_json, []

    def add(row: Row) -> None:
        report.write_results(row, {score: {0: Score(50.0)} for score in row.paper}, [], Setting(out=str(tmp_path)))

    def while_another_begins(*arguments: Any) -> None:
        monkeypatch.setattr(report, "write_json", write)
        others.append(os.fork())
        if not others[0]:
            try:
                add(rows[1])
            finally:
                os._exit(0)
        time.sleep(0.8)  # the other waits for this one, or has written by then
        write(*arguments)

    monkeypatch.setattr(report, "write_json", while_another_begins)
    add(rows[0])
    os.waitpid(others[0], 0)
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_what_is_finished_is_not_run_again(commands: Commands) -> None:
    assert main(ROW) == 0
    commands.calls.clear()
    assert main([*ROW, "--seeds=0,1"]) == 0
    assert commands.names == [name.replace("seed0", "seed1") for name in (PRETRAINED, FINETUNED)]


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_an_interrupted_training_goes_on(command: str, commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    commands.fail = lambda arguments: 143 if arguments[0] == command else 0
    assert main(ROW) == 143
    assert "continues from there" in capsys.readouterr().err
    assert not Path("runs/reproduce-scale0.01/results.json").exists()
    commands.calls.clear()
    commands.fail = lambda arguments: 0
    assert main(ROW) == 0
    name = PRETRAINED if command == "pretrain" else FINETUNED
    assert commands.calls[0] == [command, "--runs_dir=runs/reproduce-scale0.01", f"--name={name}", "--resume"]
    assert commands.names == ([PRETRAINED, FINETUNED] if command == "pretrain" else [FINETUNED])


def test_trainings_of_other_settings_are_not_taken_for_these(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ROW) == 0
    assert main([*ROW, '--set_pretrain=["--data.batch_size=64"]']) == 1
    error = capsys.readouterr().err
    assert "holds a training with other settings" in error
    assert "give another --out" in error
    assert main([*ROW, '--set_pretrain=["--data.batch_size=64"]', "--out=other"]) == 0
    assert entry("other")["top-1"]["mean"] == pytest.approx(70)


def test_given_weights_take_the_place_of_the_pre_training(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("deit.safetensors").touch()
    assert main(["reproduce", "table6", "--row=deit-s-cars", "--data.root=images", "--weights=deit.safetensors"]) == 0
    assert commands.names == ["given-deit-on-cars-seed0"]
    assert f"--weights={Path('deit.safetensors').resolve()}" in commands.calls[0]
    assert "deit.safetensors, not from the row's pre-training" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("tabel6", "There is no table 'tabel6'. Did you mean table6"),
        ("table6 --row splitmask-s-car --data.root images", "Did you mean splitmask-s-cars"),
        ("table6 --row splitmask-s-cars", "needs Stanford Cars: give --data.root DIR"),
        ("table6 --row splitmask-s-cars --data.root nothing", "The data folder nothing does not exist"),
        ("table6 --row splitmask-s-food101 --data.root images", "so it is not Food-101 in its official layout"),
        ("table6 --row deit-s-cars --data.root images", "is pre-trained on ImageNet: give --pretrain_root DIR"),
        ("table6 --row deit-s-cars --data.root images --pretrain_root none", "of --pretrain_root does not exist"),
        ("table6 --row deit-s-cars --data.root images --pretrain_root images", "so it is not ImageNet"),
        ("table6 --row deit-s-cars --data.root images --pretrain_root s3://b/x", "error: s3://b/x is an address"),
        ("table6 --row deit-s-cars --data.root images --weights none", "--weights none does not exist"),
        ("table6 --row scratch-s-cars --data.root images --weights none", "starts from random weights"),
        ("figure6 --row splitmask --data.root images --weights none", "several parts of one pre-training"),
        ("table6 --row beit-imagenet-s-cars --data.root images --pretrain_root others", "but --tokenizer is not given"),
        ("table6 --row liu-cvt13-clipart --data.root images", "cannot be run: it needs a CvT-13"),
        ("table6 --row liu-cvt13-clipart --dry_run", "has no commands: it needs a CvT-13"),
        ("table4 --row splitmask-s --data.root images", "so it is not COCO in its official layout"),
        ("--row splitmask-s-cars", "needs its table"),
        ("table6 --data.root images", "is for one row, and none is given"),
        ("--scale 0", "--scale is 0: give a share"),
        ("--scale 1.5", "--scale is 1.5: give a share"),
        ("--scale nan", "--scale is nan: give a share"),
    ],
)
def test_wrong_input_is_answered_with_what_to_do(
    arguments: str, expected: str, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    imagenet(Path("others"))
    assert main(["reproduce", *arguments.split()]) == 1
    assert expected in capsys.readouterr().err
    assert not commands.calls


@pytest.mark.parametrize("content", ["", '{"a": ', "[1]"])
@pytest.mark.parametrize("file", ["results.json", f"{PRETRAINED}.json", f"{FINETUNED}/test.json"])
def test_a_damaged_file_is_named_with_what_to_do(
    file: str, content: str, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ROW) == 0
    path = Path("runs/reproduce-scale0.01") / file
    path.write_text(content)
    commands.calls.clear()
    assert main(ROW) == 1
    assert f"{path} is damaged" in capsys.readouterr().err
    assert not commands.calls


def test_a_damaged_list_of_results_is_noticed_before_the_trainings(commands: Commands) -> None:
    out = Path("runs/reproduce-scale0.01")
    out.mkdir(parents=True)
    (out / "results.json").write_text("{")
    assert main(ROW) == 1
    assert not commands.calls


def test_a_part_whose_folder_was_deleted_is_run_again(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ROW) == 0
    commands.calls.clear()
    folder = Path("runs/reproduce-scale0.01") / FINETUNED
    (folder / "test.json").unlink()
    assert main(ROW) == 1
    assert f"delete {folder}, and the same command runs this part again" in " ".join(capsys.readouterr().err.split())
    folder.rmdir()
    assert main(ROW) == 0
    assert commands.names == [FINETUNED]
    assert entry()["top-1"]["mean"] == pytest.approx(70)


def test_a_file_in_place_of_the_folder_of_results_is_named(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes").touch()
    assert main([*ROW, "--out=notes"]) == 1
    assert "notes cannot be written" in capsys.readouterr().err
    assert not commands.calls


def test_several_processes_of_a_launcher_are_told_to_run_the_commands(
    commands: Commands, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert main(ROW) == 1
    assert "print the commands with --dry_run" in " ".join(capsys.readouterr().err.split())
    assert not commands.calls
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(ROW) == 0


def test_a_training_that_was_run_by_hand_is_gone_on_with(commands: Commands) -> None:
    checkpoints = Path("runs/reproduce-scale0.01") / PRETRAINED / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").touch()
    assert main(ROW) == 0
    assert commands.calls[0][-1] == "--resume"


@pytest.mark.parametrize("seeds", ["1,1", "-1", "a", "[]"])
def test_wrong_seeds_are_refused(seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", f"--seeds={seeds}"]) == 2
    assert "is not a list of different seeds" in capsys.readouterr().err


@pytest.mark.parametrize("table", ["table4", "table5"])
def test_images_without_their_annotations_are_noticed_before_the_pre_training(
    table: str, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    REPLICAS["COCO" if table == "table4" else "ADE20K"](Path("dense"))
    row = "splitmask-s" if table == "table4" else "splitmask"
    assert main(["reproduce", table, f"--row={row}", "--data.root=dense"]) == 1
    assert "but not their annotations" in capsys.readouterr().err
    assert not commands.calls


def test_a_command_runs_in_a_process_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert running.run_command(["--version"]) == 0
    assert running.run_command(["nothing"]) == 2
    assert "There is no command 'nothing'" in capfd.readouterr().err


def test_sigterm_is_passed_on_to_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"open({str(tmp_path / 'started')!r}, 'w').close()\ntime.sleep(60)\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(running.sys, "executable", str(script))

    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def send() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
        signal.pthread_kill(main_thread, signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=send, daemon=True).start()
    assert running.run_command(["pretrain"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before
