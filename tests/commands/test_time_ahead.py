"""The time of a pre-training is told, and one that takes too long refused, before its images are read."""

import copy
import shlex
from pathlib import Path

import pytest
import yaml
from tiny_runs import PRETRAIN

from lit_splitmask import modules
from lit_splitmask.callbacks.estimate import too_long_message
from lit_splitmask.cli import main
from lit_splitmask.commands import ahead, recipe_choice, recipes
from lit_splitmask.commands.plan.cost import StepCost
from lit_splitmask.datamodules.file_data import FileData

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


def cost(seconds: float) -> StepCost:
    """The cost of a step of one image."""
    return StepCost("cpu", 1, 5, seconds, 0, 0, 0, parameters=10, weights_bytes=40, checkpoint_bytes=120)


@pytest.fixture
def long(work: Path) -> list[str]:
    """A pre-training whose recipe gives no length, of a network wider than that of the recipe for CPUs."""
    settings = copy.deepcopy(PRETRAIN)
    settings["model"]["backbone"] |= {"embed_dim": 144}
    del settings["data"]["init_args"]["budget"]
    Path("long.yaml").write_text(yaml.safe_dump(settings))
    return ["pretrain", "--recipe", "long.yaml", "--data.root", "shapes"]


def printed_commands(text: str) -> list[list[str]]:
    """The commands on lines of their own in a text."""
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("  lit-splitmask ")]


def test_what_takes_too_long_is_refused_before_any_image_is_read(
    long: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ahead, "time_steps", lambda _: cost(10.0))
    monkeypatch.setattr(FileData, "prepare_data", lambda _: pytest.fail("the images were read"))
    assert main(long) == 1
    assert not Path("runs").exists()
    commands = printed_commands(capsys.readouterr().err)
    assert [command[-2] for command in commands] == ["--data.budget.images"] * 3 + [
        "--recipe",
        "--data.budget.images",
    ]
    monkeypatch.setattr(FileData, "prepare_data", lambda _: None)
    for command in commands:
        capsys.readouterr()
        assert main([*command, "--print_config"]) == 0, command
        assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["budget"], command


def test_the_time_is_told_first(
    long: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ahead, "time_steps", lambda _: cost(0.0001))

    def interrupt(_: FileData) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FileData, "prepare_data", interrupt)
    assert main(long) == 130
    assert "images x 5,000 passes = " in (told := capsys.readouterr().out)
    assert "(h:mm:ss) on this machine once the images are read" in told


def test_steps_are_timed_on_drawn_images(long: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ahead.Job(
        modules.Pretrain, ["--data.root=shapes"], yaml.safe_load(Path("long.yaml").read_text()), 4, True, drawn=True
    )
    assert ahead.time_steps(drawn).seconds > 0
    assert not Path("runs").exists()


def test_the_recipe_that_runs_is_not_proposed_instead() -> None:
    text = too_long_message(1_000_000.0, steps=1_000, images=2_000_000, command="cmd", smaller=None)
    assert "--recipe" not in text


@pytest.mark.parametrize(("num_images", "passes"), [(2_000, 300), (500_000, 50), (100_000_000, 1)])
def test_a_machine_without_a_gpu_gets_a_length_that_it_can_do(num_images: int, passes: int) -> None:
    settings, reason = recipe_choice.choose(num_images, 200, gpu=False).settings()
    assert settings["data"]["init_args"]["budget"] == {"passes": passes}
    assert ("passes instead of 300" in reason) == (passes < 300)


@pytest.mark.parametrize("name", [name for name in recipes.pretraining_recipes() if name.endswith("_cpu")])
def test_every_recipe_for_cpus_has_a_length(name: str) -> None:
    assert recipes.read(name)["data"]["init_args"]["budget"] == {"passes": 300}


@pytest.mark.parametrize("form", ["recipe", "config", "max_steps"])
def test_a_length_of_the_users_own_replaces_that_of_the_recipe(
    form: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(
        yaml.safe_dump(
            {"data": {"init_args": {"budget": {"steps": 6}}}}
            | ({"recipe": "splitmask_cpu"} if form == "recipe" else {})
        )
    )
    given = {
        "recipe": ["--recipe", "mine.yaml"],
        "config": ["--recipe", "splitmask_cpu", "--config", "mine.yaml"],
        "max_steps": ["--recipe", "splitmask_cpu", "--trainer.max_steps", "6"],
    }[form]
    assert main(["pretrain", "--data.root", "shapes", *given, "--print_config"]) == 0
    budget = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["budget"]
    assert (budget or {}).get("passes") is None
