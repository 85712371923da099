"""The command line as commands read it before there is a parser for all settings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lit_splitmask.commands.request import Option, Request, is_recipe
from lit_splitmask.errors import UserError

ROOT = ["--data.root", "photos"]


def read(*arguments: str, command: str = "pretrain") -> Request:
    return Request.read(command, arguments)


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
    request = read("table6", "--json", command="reproduce")
    assert request.settings() == ["table6", "--json"]
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
def test_a_configuration_has_a_short_option(option: list[str], config_files: Path) -> None:
    request = read(*option, *ROOT)
    assert request.configs == ("more.yaml",)
    assert request.recipe is None
    assert request.settings() == ["--config=more.yaml", "--data.root=photos"]


def test_configurations_keep_their_order(config_files: Path) -> None:
    request = read("-c", "more.yaml", "--name", "x", "--config", "run.yaml")
    assert request.configs == ("more.yaml", "run.yaml")


@pytest.mark.parametrize("option", ["-c", "--config", "--recipe"])
@pytest.mark.parametrize("recipe", ["splitmask_cpu", "mine.yaml"])
def test_a_recipe_may_be_given_as_a_configuration(option: str, recipe: str, config_files: Path) -> None:
    request = read(option, recipe, *ROOT)
    assert request.recipe == recipe
    assert request.configs == ()
    assert request.settings() == [f"--recipe={recipe}", "--data.root=photos"]


@pytest.mark.parametrize(
    "config", ["more.yaml", "run.yaml", "no_recipe.yaml", "list.yaml", "broken.yaml", "missing.yaml", ""]
)
def test_other_configurations_are_no_recipes(config: str, config_files: Path) -> None:
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
def test_two_recipes_are_refused(arguments: list[str], config_files: Path) -> None:
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


@pytest.mark.parametrize(
    "module", ["lit_splitmask.cli", "lit_splitmask.commands.request", "lit_splitmask.commands.help"]
)
def test_the_command_line_is_read_without_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'lightning', 'timm', 'jsonargparse'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("command", ["pretrain", "finetune", "compare", "probe", "embed", "plan", "shard", "predict"])
def test_a_folder_of_images_may_stand_alone(command: str) -> None:
    request = Request.read(command, ["photos", "--seed", "1"])
    assert request.root == "photos"
    assert request.settings() == ["--seed=1", "--data.root=photos"]
    assert request.arguments() == ["photos", "--seed", "1"]


def test_two_folders_of_images_are_refused() -> None:
    with pytest.raises(UserError, match="pretrain takes one folder of images, but was given a and b: give one of them"):
        Request.read("pretrain", ["a", "--data.root", "b"])


def test_other_words_that_stand_alone_are_no_folders() -> None:
    assert Request.read("reproduce", ["table6"]).root is None
