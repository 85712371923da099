"""Help, version, recipes, and the forms of a command line."""

import io
import json
import logging
import shlex
import subprocess
import sys
from contextlib import redirect_stderr
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from tiny_runs import PRETRAIN

from lit_splitmask import __version__, cli
from lit_splitmask.cli import main
from lit_splitmask.commands import recipes, run_cli
from lit_splitmask.commands.request import Request
from lit_splitmask.shell import copyable, wrapped

COMMANDS = (
    "plan",
    "pretrain",
    "finetune",
    "compare",
    "probe",
    "embed",
    "export",
    "recipes",
    "convert-dalle",
    "fit",
    "validate",
    "test",
)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lit_splitmask", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == __version__


def test_a_command_that_is_misspelt_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrian"]) == 2
    assert "did you mean pretrain?" in capsys.readouterr().err
    assert main(["xyz"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert len(citation["references"][0]["authors"]) == 6


def test_an_unknown_command_is_answered_with_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretain"]) == 2
    error = capsys.readouterr().err
    assert "'pretain'" in error
    assert all(command in error for command in COMMANDS)


@pytest.mark.parametrize("command", ["plan", "pretrain", "finetune", "compare", "probe", "embed"])
def test_the_help_of_a_command_lists_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: lit-splitmask {command}")
    assert "--data.root" in text


@pytest.mark.parametrize(("command", "option"), [("convert-dalle", "--weights"), ("recipes", "--recipe")])
def test_commands_without_images_have_a_help(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: lit-splitmask {command}")
    assert option in text


def test_the_help_names_the_methods_that_have_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    methods = recipes.methods()
    assert {"splitmask": "SplitMask", "mae": "MAE", "supervised": "Supervised"}.items() <= methods.items()
    for command, expected in (("pretrain", "|".join(methods.values())), ("compare", f"({', '.join(methods)})")):
        assert main([command, "--help"]) == 0
        assert expected in capsys.readouterr().out


def test_recipes_takes_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 1
    assert "takes no options, but was given --json" in capsys.readouterr().err


def test_the_full_help_lists_nested_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--help_all"]) == 0
    text = capsys.readouterr().out
    assert "--model.backbone.patch_size" in text
    assert "--trainer.max_steps" in text


def test_recipes_are_listed_with_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipes.available()
    assert all(len(line.split()) > 4 for line in lines)


def run_python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120)


def test_help_and_early_errors_do_not_import_torch() -> None:
    done = run_python(
        "import sys\n"
        "from lit_splitmask.cli import main\n"
        "for arguments in (['--help'], ['recipes'], ['nope'], ['pretrain', '--help'], ['finetune', '--help'],\n"
        "                  ['compare', '--help']):\n"
        "    main(arguments)\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules\n"
        "print('light')"
    )
    assert done.stdout.endswith("light\n"), done.stderr


def test_importing_the_package_raises_no_warnings() -> None:
    done = run_python("import lit_splitmask; print(lit_splitmask.__version__)", "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_printed_settings_can_be_read_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pretrain", "--recipe", "pretrain.yaml", "--data.root", "shapes", "--data.batch_size", "4"]
    assert main([*arguments, "--print_config"]) == 0
    printed = capsys.readouterr().out
    settings = yaml.safe_load(printed)
    assert settings["data"]["init_args"]["batch_size"] == 4
    assert settings["model"]["backbone"]["embed_dim"] == PRETRAIN["model"]["backbone"]["embed_dim"]
    Path("again.yaml").write_text(printed)
    assert main(["pretrain", "--config", "again.yaml", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == settings
    assert not Path("runs").exists()


@pytest.mark.parametrize("form", ["name", "file", "equals"])
def test_config_takes_a_recipe_with_its_base(form: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text((files("lit_splitmask.recipes") / "mae_cpu.yaml").read_text())
    given = {"name": ["--config", "mae_cpu"], "file": ["-c", "mine.yaml"], "equals": ["--config=mae_cpu"]}[form]
    printed = []
    for options in (["--recipe", "mae_cpu"], given):
        assert main(["pretrain", "--data.root", "shapes", *options, "--print_config"]) == 0
        printed.append(yaml.safe_load(capsys.readouterr().out) | {"recipe": None})
    assert printed[0] == printed[1]
    assert printed[0]["model"]["backbone"]["embed_dim"] == 128  # of the recipe that it starts from


@pytest.mark.parametrize("second", [["--recipe", "splitmask_cpu"], ["-c", "beit_cpu"]])
def test_two_recipes_are_refused(second: list[str], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--data.root", "shapes", "--config", "mae_cpu", *second]) == 1
    error = capsys.readouterr().err
    assert "A run starts from one recipe, not from" in error
    assert "mae_cpu" in error
    assert second[1] in error


def test_settings_may_be_given_as_text(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = json.dumps({"data": {"init_args": {"batch_size": 5}}, "name": "x" * 300})
    assert (
        main(["pretrain", "--recipe", "pretrain.yaml", "--data.root", "shapes", "--config", settings, "--print_config"])
        == 0
    )
    assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["batch_size"] == 5


def test_classes_may_be_given_by_their_short_names(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pretrain", "--recipe", "pretrain.yaml", "--data", "ImageFolder", "--data.root", "shapes"]
    arguments += ["--model.objective", "SplitMask", "--model.objective.tokenizer", "RandomPatches"]
    arguments += ["--model.objective.masking", "BlockMasking", "--model.objective.tokenizer.vocabulary", "32"]
    assert main([*arguments, "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    objective = settings["model"]["objective"]["init_args"]
    assert objective["tokenizer"]["class_path"].endswith(".RandomPatches")
    assert objective["tokenizer"]["init_args"]["vocabulary"] == 32
    assert objective["masking"]["class_path"].endswith(".BlockMasking")
    assert settings["data"]["class_path"].endswith(".ImageFolder")


@pytest.mark.parametrize(
    "budget", [["--data.budget.passes", "2"], ["--data.budget.images", "100"], ['--data.budget={"steps": 3}']]
)
def test_a_budget_on_the_command_line_replaces_that_of_the_recipe(
    work: Path, budget: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "--recipe", "pretrain.yaml", "--data.root", "shapes", *budget, "--print_config"]) == 0
    given = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["budget"]
    assert sum(value is not None for value in given.values()) == 1


@pytest.mark.parametrize(
    "command", ["plan", "pretrain", "finetune", "compare", "probe", "embed", "shard", "fit", "reproduce"]
)
def test_ctrl_c_ends_every_command_with_the_one_to_run_next(
    command: str, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Request) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_function", lambda _: interrupted)
    assert main([command, "--data.root", "shapes", "--seed", "1"]) == 130
    said = capsys.readouterr().err
    assert said.startswith("interrupted: ")
    assert said.endswith(f"\n  lit-splitmask {command} --data.root shapes --seed 1\n")


def test_a_long_sentence_is_broken_between_words_and_a_command_in_it_stays() -> None:
    text = "Wrote backbone.safetensors, metrics.csv in runs/p. Next:\n  lit-splitmask finetune --weights runs/p/backbone.safe"
    lines = wrapped(text, width=40).splitlines()
    assert lines == ["Wrote backbone.safetensors, metrics.csv", "in runs/p. Next:", text.splitlines()[1]]
    assert wrapped(text) == text  # not on a terminal


def test_messages_are_written_to_what_standard_error_is_at_the_time() -> None:
    handler = run_cli._ToTerminal()
    with redirect_stderr(io.StringIO()) as bar:  # rich's, while a progress bar is shown
        handler.handle(logging.makeLogRecord({"msg": "%d images", "args": (3,)}))
    assert bar.getvalue() == "3 images\n"


def test_a_long_command_is_printed_on_lines_that_a_shell_reads_as_one() -> None:
    words = [
        "lit-splitmask",
        "finetune",
        "my photos",
        "--weights",
        "runs/pretrain-my photos/backbone.safetensors",
        "--resume",
    ]
    text = copyable(words, width=60)
    assert len(text.splitlines()) > 1
    assert all(len(line) <= 60 for line in text.splitlines()[:1])
    assert shlex.split(text.replace("\\\n", "")) == words
    assert copyable(words, width=200) == "  " + shlex.join(words)
