"""Commands that are printed run as they are printed: what is copied from the screen, or from a page, is the next step."""

import ast
import html
import re
import shlex
from pathlib import Path

import pytest
from pages import PROGRAM, ROOT, printed_commands
from test_report import write_comparison

from lit_splitmask.cli import main
from lit_splitmask.commands.compare.options import Options
from lit_splitmask.commands.export import command as export_command

pytestmark = pytest.mark.filterwarnings("ignore")  # of tiny trainings: short logs, no workers

TINY = [
    "--data.batch_size=4",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]

PRINTERS = {
    "cli._to_repeat": "test_ctrl_c_ends_every_command_with_the_one_to_run_next",
    "commands.ahead.command_of": "test_a_schedule_longer_than_a_day_is_not_started_without_a_budget",
    "commands.compare.experiment._command": "test_the_recommended_command_runs_as_it_is_printed",
    "commands.compare.report.write_report": "test_a_comparison_runs_once_and_reports",
    "commands.export.command.command_to_export": "test_each_command_prints_the_next_from_a_folder_to_files_for_others",
    "commands.export.command.export": "test_each_command_prints_the_next_from_a_folder_to_files_for_others",
    "commands.finetune._report": "test_each_command_prints_the_next_from_a_folder_to_files_for_others",
    "commands.lightning_commands.fit": "test_ctrl_c_in_fit_names_the_checkpoint_and_the_command_that_goes_on",
    "commands.plan.command._commands": "test_each_command_prints_the_next_from_a_folder_to_files_for_others",
    "commands.pretrain.command_to_finetune": "test_each_command_prints_the_next_from_a_folder_to_files_for_others",
    "commands.pretrain.pretrain": "test_each_command_prints_the_next_from_a_folder_to_files_for_others",
    "commands.report.comparison._how": "test_the_page_of_a_comparison_has_a_command_that_is_read",
    "commands.report.run._after_finetuning": "test_the_commands_on_the_page_of_a_run_run",
    "commands.report.run._after_pretraining": "test_the_commands_on_the_page_of_a_run_run",
    "commands.report.run._commands": "test_the_commands_on_the_page_of_a_run_run",
    "commands.reproduce.page._short": "test_the_page_is_made_from_the_rows",
    "commands.reproduce.stages.__str__": "test_the_commands_of_every_kind_of_row_are_read_by_the_parsers",
    "commands.shard.shard": "test_the_command_after_shard_is_read",
    "commands.training._command_that_goes_on": "test_a_resumed_pretraining_is_bit_for_bit_the_uninterrupted_one",
}
"""The functions that make a command for people, and the test that runs what they print."""


def functions_that_make_commands() -> set[str]:
    """Functions of the package with a list that begins with the name of the program: the words of a command."""
    found = set()
    for path in sorted((ROOT / "lit_splitmask").rglob("*.py")):
        module = path.relative_to(ROOT / "lit_splitmask").with_suffix("").as_posix().replace("/", ".")
        text = path.read_text(encoding="utf-8")
        for function in ast.walk(ast.parse(text)) if PROGRAM in text else ():
            if isinstance(function, ast.FunctionDef):
                lists = [node for node in ast.walk(function) if isinstance(node, ast.List) and node.elts]
                if any(isinstance(node.elts[0], ast.Constant) and node.elts[0].value == PROGRAM for node in lists):
                    found.add(f"{module}.{function.name}")
    return found


def test_every_function_that_makes_a_command_has_a_test_that_runs_it() -> None:
    assert functions_that_make_commands() == set(PRINTERS)
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in PRINTERS.values() if f"\ndef {name}(" not in tests] == []


def shortened(arguments: list[str]) -> list[str]:
    """A training of one step, a prediction without workers; DIR is a folder of images."""
    arguments = ["shapes" if word == "DIR" else word for word in arguments]
    if arguments[0] in ("pretrain", "finetune"):
        kept = [word for word in arguments if not word.startswith("--data.budget")]
        return [*kept, "--data.budget.steps=1", *TINY]
    return [*arguments, TINY[1], *TINY[2:]] if arguments[0] == "predict" else arguments


def walk(first: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Runs a command, then those that it prints, then those that these print; returns what was run, in order."""
    waiting, done = [first], []
    while waiting:
        arguments = waiting.pop(0)
        if arguments in done:
            continue
        done.append(arguments)
        assert main(shortened(arguments)) == 0, capsys.readouterr().err
        printed = printed_commands(capsys.readouterr().out)
        waiting += [command for command in printed if "shapes-2" not in " ".join(command)]  # the same of a second run
    return [" ".join(arguments) for arguments in done]


def test_each_command_prints_the_next_from_a_folder_to_files_for_others(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    run = walk(["plan", "shapes", "--no_timing"], capsys)
    assert [command.partition(" ")[0] for command in run] == [
        *("plan", "pretrain", "finetune", "finetune", "report", "predict", "export", "report")
    ]
    for name in ("report.html", "predictions.csv", "classifier-onnx/model.onnx", "classifier-timm/config.json"):
        assert Path("runs/finetune-shapes", name).is_file()
    assert Path("runs/pretrain-shapes/report.html").is_file()
    monkeypatch.setattr(export_command, "find_spec", lambda name: None)
    words = export_command.command_to_export(Path("w"), ("timm", "onnx"))
    assert words[-1] == "timm"  # what is printed can be run without the extra


def commands_on(page: Path) -> list[list[str]]:
    """The commands of a page that ``report`` wrote."""
    text = re.findall(r"<pre[^>]*>(.*?)</pre>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [html.unescape(re.sub("<[^>]+>", "", line)) for line in text]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{PROGRAM} ")]


def test_the_commands_on_the_page_of_a_run_run(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("pretrain", "finetune"):
        given = ["--recipe", f"{command}.yaml", "--data.root", "shapes", "--name", command]
        assert main([command, *given, "--data.budget.steps=1"]) == 0
        assert main(["report", f"runs/{command}"]) == 0
    again, finetune, embed = commands_on(Path("runs/pretrain/report.html"))
    assert [words[0] for words in (again, finetune, embed)] == ["pretrain", "finetune", "embed"]
    predict, export = commands_on(Path("runs/finetune/report.html"))[1:]
    assert (predict[0], export[0]) == ("predict", "export")
    for arguments in (again, finetune, predict):
        assert main([*shortened(arguments), "--print_config"]) == 0, capsys.readouterr().err
    assert main(embed) == 0
    for command in ("pretrain", "finetune"):
        assert str(work) not in Path(f"runs/{command}/report.html").read_text(
            encoding="utf-8"
        )  # no path of this machine
    assert export[-2:] == ["--format", "timm,onnx"]


def test_the_page_of_a_comparison_has_a_command_that_is_read(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c")
    assert main(["report", str(folder)]) == 0
    (command,) = [words for words in commands_on(folder / "report.html") if words[0] == "compare"]
    options = Options.parse(command[1:])
    assert (options.root, options.out, options.seeds, options.equal_time) == ("photos", str(folder), 2, False)


def test_the_command_after_shard_is_read(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("litdata", reason="needs the extra stream")
    assert main(["shard", "shapes", "--out", "my shards"]) == 0
    (command,) = printed_commands(capsys.readouterr().out)
    assert main([*command, "--print_config"]) == 0
    assert "root: my shards" in capsys.readouterr().out
