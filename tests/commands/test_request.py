"""The command line as commands read it before there is a parser for all settings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lit_splitmask.commands.request import Option, Request, is_recipe, names_budget
from lit_splitmask.errors import UserError

ROOT = ["--data.root", "photos"]


def read(*arguments: str, command: str = "pretrain") -> Request:
    return Request.read(command, arguments)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: holds configuration files of every kind."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "more.yaml": "data: {init_args: {batch_size: 4}}",
        "mine.yaml": "recipe: splitmask_cpu\ndata: {init_args: {batch_size: 4}}",
        "run.yaml": "recipe: splitmask_cpu\nruns_dir: runs",
        "no_recipe.yaml": "recipe: null",
        "list.yaml": "[1, 2]",
        "broken.yaml": "{a: [1",
    }
    for name, text in texts.items():
        Path(name).write_text(text)
    return tmp_path


# Names and values


@pytest.mark.parametrize(
    "arguments", [["--data.root", "photos"], ["--data.root=photos"], ["--data.init_args.root=photos"]]
)
def test_a_value_follows_its_option_or_an_equals_sign(arguments: list[str]) -> None:
    assert read(*arguments).root == "photos"


def test_of_an_option_that_is_given_twice_the_last_counts() -> None:
    request = read("--data.root", "first", "--name=a", "--data.root=second", "--name", "b")
    assert (request.root, request.name) == ("second", "b")
    assert read("--weights", "a.pt", "--model.weights", "b.pt").weights == "b.pt"
    assert read("--model.weights", "b.pt", "--weights", "a.pt").weights == "a.pt"


@pytest.mark.parametrize(
    "root", ["/data/photos--resume", "photos --resume", "resume", "a=b--config=c", "-photos", "--", "--resume"]
)
def test_a_value_is_not_taken_for_an_option(root: str) -> None:
    request = read(f"--data.root={root}", "--name", "x")
    assert request.root == root
    assert not request.resume
    assert not request.configs
    assert request.name == "x"


def test_a_folder_may_be_named_like_an_option() -> None:
    request = read("--data.root=--resume", "--data.pool=[--recipe, -c]")
    assert request.root == "--resume"
    assert request.pool == ("--recipe", "-c")
    assert not request.resume
    assert request.recipe is None
    assert read("--data.root", "/data/photos--resume").resume is False


@pytest.mark.parametrize("value", ["-1", "-1e-3", "-0.5", "-.5"])
def test_negative_numbers_are_values(value: str) -> None:
    request = read("--model.optim.lr", value, *ROOT)
    assert request.value("--model.optim.lr") == value
    assert request.root == "photos"
    assert request.settings() == [f"--model.optim.lr={value}", "--data.root=photos"]


def test_an_option_without_a_value_is_there() -> None:
    request = read("--print_config", *ROOT)
    assert request.has("--print_config")
    assert not request.has("--help_all")
    assert request.value("--print_config") == ""
    assert request.value("--help_all") is None
    assert request.root == "photos"


@pytest.mark.parametrize("flag", ["--print_config", "--help_all", "--json"])
def test_a_flag_takes_no_value_from_the_next_argument(flag: str) -> None:
    request = read(flag, "photos")
    assert request.given == (Option(flag, None), Option("", "photos"))
    assert read("--print_config=skip_null").given == (Option("--print_config", "skip_null"),)


def test_positional_arguments_have_no_name() -> None:
    request = read("photos", "--json", command="plan")
    assert request.settings() == ["photos", "--json"]
    assert request.root is None


def test_a_value_may_hold_equals_signs() -> None:
    text = '{"data": {"init_args": {"root": "a=b"}}}'
    for arguments in (["--config", text], [f"--config={text}"]):
        assert read(*arguments).configs == (text,)


def test_an_empty_value_is_a_value() -> None:
    assert read("--name=", *ROOT).name == ""
    assert read("--name", "", *ROOT).name == ""


def test_nothing_is_given() -> None:
    request = read()
    assert (request.root, request.manifest, request.datamodule, request.recipe) == (None, None, None, None)
    assert (request.task, request.weights, request.name, request.runs_dir) == (None, None, None, "runs")
    assert (request.pool, request.configs, request.resume) == ((), (), False)
    assert (request.names_settings, request.gives_budget, request.gives_length) == (False, False, False)
    assert request.settings() == request.arguments() == request.data_options() == []


# What each option means


@pytest.mark.parametrize(
    ("arguments", "resume"),
    [
        (["--resume"], True),
        (["--resume", "--name", "x"], True),
        (["--name", "x", "--resume"], True),
        (["--resume=true"], True),
        (["--resume", "True"], True),
        (["--resume=false"], False),
        (["--resume", "False"], False),
        (["--resume=no"], False),
        (["--resume=yes"], True),
        (["--resume=maybe"], False),  # which the parser refuses
        (["--resume", "--resume=false"], False),
        (["--resume=false", "--resume"], True),
        (["--name", "resume"], False),
    ],
)
def test_the_last_resume_option_decides(arguments: list[str], resume: bool) -> None:
    request = read(*arguments)
    assert request.resume is resume
    if "x" in arguments:
        assert request.name == "x"


def test_resume_alone_is_written_out_for_the_parser() -> None:
    assert read("--resume", "--name", "x").settings() == ["--resume=true", "--name=x"]
    assert read("--resume", "--name", "x").arguments() == ["--resume", "--name", "x"]


@pytest.mark.parametrize(
    "option", [["-c", "more.yaml"], ["-c=more.yaml"], ["--config", "more.yaml"], ["--config=more.yaml"]]
)
def test_a_configuration_has_a_short_option(option: list[str], files: Path) -> None:
    request = read(*option, *ROOT)
    assert request.configs == ("more.yaml",)
    assert request.recipe is None
    assert request.settings() == ["--config=more.yaml", "--data.root=photos"]


def test_configurations_keep_their_order(files: Path) -> None:
    request = read("-c", "more.yaml", "--name", "x", "--config", "run.yaml")
    assert request.configs == ("more.yaml", "run.yaml")


@pytest.mark.parametrize("option", ["-c", "--config", "--recipe"])
@pytest.mark.parametrize("recipe", ["splitmask_cpu", "mine.yaml"])
def test_a_recipe_may_be_given_as_a_configuration(option: str, recipe: str, files: Path) -> None:
    request = read(option, recipe, *ROOT)
    assert request.recipe == recipe
    assert request.configs == ()
    assert request.settings() == [f"--recipe={recipe}", "--data.root=photos"]


@pytest.mark.parametrize(
    "config", ["more.yaml", "run.yaml", "no_recipe.yaml", "list.yaml", "broken.yaml", "missing.yaml", ""]
)
def test_other_configurations_are_no_recipes(config: str, files: Path) -> None:
    assert not is_recipe(config)
    assert read("--config", config).configs == (config,)


def test_settings_as_text_may_be_longer_than_a_file_name() -> None:
    text = json.dumps({"name": "x" * 5000, "recipe": "splitmask_cpu"})
    request = read("--config", text)
    assert request.configs == (text,)
    assert request.recipe is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--recipe", "mae_cpu", "--recipe", "splitmask_cpu"],
        ["--recipe=mae_cpu", "-c", "splitmask_cpu"],
        ["--config", "mae_cpu", "--config=splitmask_cpu"],
        ["--recipe", "mae_cpu", "--config", "mine.yaml"],
    ],
)
def test_two_recipes_are_refused(arguments: list[str], files: Path) -> None:
    with pytest.raises(UserError, match=r"one recipe, not from mae_cpu and (splitmask_cpu|mine\.yaml)"):
        read(*arguments)


@pytest.mark.parametrize(
    ("arguments", "pool"),
    [
        (["--data.pool", "[a, b]"], ("a", "b")),
        (["--data.pool=[a,b,]"], ("a", "b")),
        (["--data.pool", "[\"a b\", 'c']"], ("a b", "c")),
        (["--data.pool", "a"], ("a",)),
        (["--data.pool=[]"], ()),
        (["--data.pool="], ()),
        (["--data.pool=[a]", "--data.pool=[b]"], ("b",)),
        (["--data.pool=[a]", "--data.pool+=b", "--data.pool+=[c, d]"], ("a", "b", "c", "d")),
        (["--data.init_args.pool=[a]"], ("a",)),
    ],
)
def test_the_folders_of_a_pool_are_a_list(arguments: list[str], pool: tuple[str, ...]) -> None:
    assert read(*arguments).pool == pool


@pytest.mark.parametrize(
    ("arguments", "datamodule"),
    [
        (["--data", "Manifest"], "Manifest"),
        (["--data=lit_splitmask.datamodules.Manifest"], "Manifest"),
        (["--data.class_path", "my.package.Data"], "Data"),
        (["--data", "ImageFolder", "--data.class_path=x.Manifest"], "Manifest"),
        (["--data.root", "a.b.c"], None),
    ],
)
def test_the_datamodule_is_known_by_the_name_of_its_class(arguments: list[str], datamodule: str | None) -> None:
    assert read(*arguments).datamodule == datamodule


def test_options_are_known_by_their_whole_name() -> None:
    request = read("--data.roots=a", "--names=b", "--tasks=c", "--weights_only=true", "--resumes")
    assert (request.root, request.name, request.task, request.weights, request.resume) == (
        None,
        None,
        None,
        None,
        False,
    )


# Which settings are given


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--recipe", "splitmask_cpu"], True),
        (["--config", "splitmask_cpu"], True),
        (["-c", "more.yaml"], True),
        (["--resume"], True),
        (["--resume=false"], False),
        (["--data.batch_size=4"], False),
    ],
)
def test_settings_to_start_from_are_recipes_files_and_runs(arguments: list[str], names: bool, files: Path) -> None:
    assert read(*ROOT, *arguments).names_settings is names


@pytest.mark.parametrize(
    ("arguments", "budget", "length"),
    [
        (["--data.budget.steps=3"], True, True),
        (["--data.budget", '{"passes": 2}'], True, True),
        (["--data.init_args.budget.images", "100"], True, True),
        (["--trainer.max_steps", "5"], False, True),
        (["--trainer.max_epochs=5"], False, True),
        (["--trainer.max_time=00:01:00:00"], False, True),
        (["--config", "more.yaml"], False, True),
        (["--config", "mine.yaml"], False, True),
        (["--recipe", "mine.yaml"], False, False),
        (["--config", "splitmask_cpu"], False, False),
        (["-c=splitmask_cpu"], False, False),
        (["--data.batch_size=4"], False, False),
        (["--name", "--data.budget.steps=3"], True, True),
        (["--name=--data.budget.steps=3"], False, False),
    ],
)
def test_a_length_is_a_budget_a_limit_or_a_file_of_the_user(
    arguments: list[str], budget: bool, length: bool, files: Path
) -> None:
    request = read(*ROOT, *arguments)
    assert (request.gives_budget, request.gives_length) == (budget, length)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--data.budget.steps=3", True),
        ("--data.init_args.budget", True),
        ("--data.batch_size=4", False),
        ("--name=--data.budget", False),
        ("data.budget", False),
    ],
)
def test_options_of_the_budget_are_recognised(argument: str, expected: bool) -> None:
    assert names_budget(argument) is expected


# Passed on


def test_the_parser_gets_all_but_the_task_and_knows_weights_by_another_name() -> None:
    request = read("--task", "segment", "--weights", "w.pt", "--data.root=x", command="finetune")
    assert request.task == "segment"
    assert request.settings() == ["--weights=w.pt", "--data.root=x"]
    assert request.settings(weights_option="--model.weights") == ["--model.weights=w.pt", "--data.root=x"]


def test_an_appended_value_keeps_its_form() -> None:
    arguments = ["--trainer.callbacks+=OverfitAwareEarlyStopping", "--trainer.callbacks+=A"]
    assert read(*arguments).settings() == read(*arguments).arguments() == arguments


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["photos", "--json"],
        ["--data.root", "photos", "--name=x", "--resume"],
        ["--resume", "--name", "x"],
        ["--resume=false"],
        ["-c", "more.yaml", "--config=mine.yaml"],
        ["--config", "splitmask_cpu", "--print_config"],
        ["--print_config=skip_null", "photos"],
        ["--json=true", "--name", ""],
        ["--data.root=--resume", "--name=-c", "--set_pretrain=--data.budget.passes=5"],
        ["--model.optim.lr", "-1", "--data.pool", "[a, b]"],
        ["--trainer.callbacks+=A", "--data.augment={}"],
        ["--config", '{"name": "a=b"}'],
    ],
)
def test_the_arguments_of_a_request_make_the_same_request(arguments: list[str], files: Path) -> None:
    request = read(*arguments)
    assert read(*request.arguments()) == request
    assert read(*request.arguments()).gives_length == request.gives_length


@pytest.mark.parametrize(
    "arguments",
    [
        ["photos", "--json"],
        ["--data.root=--resume", "--name", ""],
        ["-c", "more.yaml", "--config", "mine.yaml", "--resume"],
        ["--trainer.callbacks+=A", "--model.optim.lr", "-1", "--print_config"],
    ],
)
def test_the_settings_of_a_request_have_the_same_settings(arguments: list[str], files: Path) -> None:
    settings = read(*arguments).settings()
    assert read(*settings).settings() == settings


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--name", "x", "--data.root", "p", "--data.pool=[a]"], ["--data.root", "p"]),
        (["--data.manifest", "m.csv", "--data=Manifest"], ["--data", "Manifest", "--data.manifest", "m.csv"]),
        (["--data.root=a", "--data.root=b"], ["--data.root", "b"]),
        (["--data.root=--odd"], ["--data.root=--odd"]),
        (["--name", "x"], []),
    ],
)
def test_data_options_say_which_images(arguments: list[str], options: list[str]) -> None:
    assert read(*arguments).data_options() == options


@pytest.mark.parametrize(
    "module", ["lit_splitmask.cli", "lit_splitmask.commands.request", "lit_splitmask.commands.help"]
)
def test_the_command_line_is_read_without_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'lightning', 'timm', 'jsonargparse'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
