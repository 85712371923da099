"""Which settings a command line gives, and what it passes on."""

from pathlib import Path

import pytest

from lit_splitmask.commands.request import Request, names_budget

ROOT = ["--data.root", "photos"]


def read(*arguments: str, command: str = "pretrain") -> Request:
    return Request.read(command, arguments)


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
def test_settings_to_start_from_are_recipes_files_and_runs(
    arguments: list[str], names: bool, config_files: Path
) -> None:
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
    arguments: list[str], budget: bool, length: bool, config_files: Path
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
def test_the_arguments_of_a_request_make_the_same_request(arguments: list[str], config_files: Path) -> None:
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
def test_the_settings_of_a_request_have_the_same_settings(arguments: list[str], config_files: Path) -> None:
    settings = read(*arguments).settings()
    assert read(*settings).settings() == settings


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--name", "x", "--data.root", "p", "--data.pool=[a]"], ["--data.root", "p"]),
        (["--data.manifest", "m.csv", "--data=Manifest"], ["--data", "Manifest", "--data.manifest", "m.csv"]),
        (["--data.root=a", "--data.root=b"], ["--data.root", "b"]),
        (
            ["--data.splits.labels=several", "--data.manifest=m.csv"],
            ["--data.manifest", "m.csv", "--data.splits.labels", "several"],
        ),
        (["--data.splits.labels=none", "--data.root=a"], ["--data.root", "a"]),
        (["--data.root=--odd"], ["--data.root=--odd"]),
        (["--name", "x"], []),
    ],
)
def test_data_options_say_which_images(arguments: list[str], options: list[str]) -> None:
    assert read(*arguments).data_options() == options
