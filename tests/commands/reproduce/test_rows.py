"""The data of the paper's rows, and their commands, which the real parsers read."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lit_splitmask import datamodules, modules
from lit_splitmask.cli import main
from lit_splitmask.commands import recipes
from lit_splitmask.commands.frozen import Frozen
from lit_splitmask.commands.probe import Options as ProbeOptions
from lit_splitmask.commands.reproduce import page
from lit_splitmask.commands.reproduce.checks import needs_of
from lit_splitmask.commands.reproduce.stages import Setting, Stage, stages_of
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import RunCLI
from lit_splitmask.commands.tasks.registry import task_for_recipe
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.paper import TABLE_3
from lit_splitmask.datamodules.paper_rows import Row, paper_tables

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")

ALL = [row for table in paper_tables().values() for row in table.rows.values()]
RUN = [row for row in ALL if row.outside is None]


def distinct(rows: list[Row]) -> dict[str, Stage]:
    """The commands of rows by their names; those that rows share, once."""
    stages = [stage for row in rows for stage in stages_of(row, 0, Setting())]
    return {stage.name: stage for stage in stages}


def test_every_table_and_figure_has_all_its_rows() -> None:
    counts = {name: len(table.rows) for name, table in paper_tables().items()}
    assert counts == {
        "table1": 15,  # 4 methods on 4 sets, no supervised one on COCO
        "table2": 4,
        "table4": 14,
        "table5": 5,
        "table6": 72,  # 2 backbones × 5 methods × 7 sets, 4 cells empty; 2 × 3 of Liu et al.
        "table7": 9,
        "table8": 4,
        "figure2": 5,
        "figure3": 1,
        "figure5": 2,
        "figure6": 1,
    }


@pytest.mark.parametrize(
    ("table", "row", "paper"),
    [
        ("table1", "dino-imagenet", [78.4]),
        ("table2", "random-patches", [75.3]),
        ("table4", "splitmask-b", [46.8, 67.9, 51.5, 42.1, 65.3, 45.1]),
        ("table5", "deit", [46.1]),
        ("table6", "beit-imagenet-b-cars", [93.9]),
        ("table6", "splitmask-s-sketch", [70.7]),
        ("table6", "liu-resnet50-painting", [53.5]),
        ("table7", "beit-800-b", [83.2]),
        ("table8", "split-match", [79.3, 4.0]),
        ("figure6", "splitmask", [None] * 6),
    ],
)
def test_a_row_has_the_papers_number(table: str, row: str, paper: list[float | None]) -> None:
    assert list(paper_tables()[table].rows[row].paper.values()) == paper


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_every_training_of_the_data_is_used(kind: str) -> None:
    data = yaml.safe_load((Path(page.__file__).parents[2] / "datamodules" / "paper_rows.yaml").read_text())
    trainings = [getattr(row, kind) for row in ALL]
    assert {one.name for one in trainings if one is not None} == set(data[kind])


def test_a_row_that_needs_what_this_package_lacks_says_so() -> None:
    assert [needs_of(row) for row in ALL if row.outside] == [[row.outside] for row in ALL if row.outside]
    assert {row.backbone for row in ALL if row.outside} == {"CvT-13", "ResNet-50"}
    dalle = [row for row in RUN if row.pretraining and row.pretraining.tokenizer]
    assert dalle
    assert all("DALL-E's encoder (--tokenizer)" in needs_of(row) for row in dalle)


def parsed(stages: list[Stage]) -> Iterator[tuple[Stage, object]]:
    """Reads the options of trainings with the parser of their command, which is built once per module and reads each recipe."""
    parsers: dict[object, RunCLI] = {}
    for stage in stages:
        assert stage.recipe is not None
        recipe = recipes.read(stage.recipe)
        module = modules.Pretrain if stage.command == "pretrain" else task_for_recipe(stage.recipe).module
        options = Request.read(stage.command, stage.arguments).settings(weights_option="--model.weights")
        if module not in parsers:
            parsers[module] = RunCLI(module, options, recipe)
        data = {key: value for key, value in recipe["data"]["init_args"].items() if key != "budget"}
        settings = {**recipe, "data": {**recipe["data"], "init_args": data}}
        yield stage, parsers[module].parser.parse_args(["--config", yaml.safe_dump(settings), *options])


def check_parsed(stages: list[Stage]) -> None:
    for stage, config in parsed(stages):
        text = " ".join(stage.arguments)
        data = config.data.init_args  # type: ignore[attr-defined]
        assert data.root in ("DIR", "PRETRAIN_DIR"), text
        budget = {key: value for key, value in vars(data.budget).items() if value is not None}
        assert len(budget) == 1, text
        if stage.command == "pretrain":
            assert f"--data={config.data.class_path.rpartition('.')[2]}" in stage.arguments  # type: ignore[attr-defined]
            assert ("ExportAlong" in text) == ("sweep" in stage.name)


def trainings() -> list[Stage]:
    return [stage for stage in distinct(RUN).values() if stage.recipe is not None]


def shape(stage: Stage) -> tuple[object, ...]:
    """What a parser sees of a command, apart from values that are numbers or paths, and names of published datasets."""
    changed = tuple(one.partition("=")[0] for one in stage.arguments)
    of_method = stage.recipe if any(name.startswith("--model.objective") for name in changed) else None
    return stage.command, "finetune" in str(stage.recipe), of_method, changed


def test_the_commands_of_every_kind_of_row_are_read_by_the_parsers() -> None:
    kinds = {shape(stage): stage for stage in trainings()}
    assert 10 < len(kinds) < 20
    check_parsed(list(kinds.values()))


def test_the_commands_of_every_row_name_published_datasets_and_recipes_of_their_command() -> None:
    of_command = {(stage.recipe, stage.command) for stage in trainings()}
    for recipe, command in of_command:
        recipes.check_command(str(recipe), recipes.read(str(recipe)), command)
    for stage in trainings():
        for option in stage.arguments:
            if option.startswith("--data="):
                assert issubclass(getattr(datamodules, option.removeprefix("--data=")), ListedData)


@pytest.mark.slow  # 150 commands
def test_the_commands_of_every_row_are_read_by_the_parsers() -> None:
    seen = {tuple(a for a in one.arguments if not a.startswith("--name")): one for one in trainings()}
    assert len(seen) > 150
    check_parsed(list(seen.values()))


def test_the_commands_of_every_probe_are_read_by_its_parser() -> None:
    probes = [stage for stage in distinct(RUN).values() if stage.command == "probe"]
    assert len(probes) == 4
    for stage in probes:
        options = [option for option in stage.arguments if not option.startswith("--weights")]
        frozen = Frozen(Request.read("probe", options), ProbeOptions)
        assert type(frozen.data).__name__ == "ImageNet"
        assert frozen.options.blocks


def test_rows_that_need_the_same_training_share_it() -> None:
    table = paper_tables()["table6"].rows
    starts = {stages_of(table[f"deit-s-{name}"], 0, Setting())[0].name for name in ("cars", "food101", "sketch")}
    assert starts == {"supervised-imagenet-s-seed0"}
    assert distinct([table["deit-s-cars"]]).keys() == {
        "supervised-imagenet-s-seed0",
        "supervised-imagenet-s-on-cars-seed0",
    }


def test_epochs_of_pre_training_are_those_of_table_3_and_of_constant_updates() -> None:
    stages = distinct(RUN)
    passes = {
        name: next(a for a in stage.arguments if "budget" in a)
        for name, stage in stages.items()
        if stage.command == "pretrain"
    }
    assert passes["splitmask-cars-s-seed0"] == f"--data.budget.passes={TABLE_3['Stanford Cars']}"
    assert passes["beit-ade20k-b-seed0"] == "--data.budget.passes=21000"
    assert passes["dino-imagenet-400-b-seed0"] == "--data.budget.passes=400"
    steps = [stages[f"splitmask-imagenet{part}-s-seed0"].steps for part in ("", "-0.1", "-1", "-5", "-10")]
    assert max(steps) - min(steps) < 0.001 * min(steps)


def test_the_scale_multiplies_every_training() -> None:
    row = paper_tables()["table5"].rows["splitmask"]
    whole, part = (stages_of(row, 0, Setting(scale=scale)) for scale in (1.0, 0.01))
    assert [stage.steps for stage in whole] == [207_232, 160_000]
    assert [stage.steps for stage in part] == [2_073, 1_600]
    assert "--data.budget.passes=210" in part[0].arguments
    assert "--data.budget.steps=1600" in part[1].arguments


def test_a_sweep_is_one_pre_training_with_fine_tunings_along_the_way() -> None:
    row = paper_tables()["figure6"].rows["splitmask"]
    pretrain, *finetunings = stages_of(row, 0, Setting(scale=0.1))
    assert "--data.budget.passes=4500" in pretrain.arguments
    weights = [next(a for a in stage.arguments if a.startswith("--weights")) for stage in finetunings]
    assert weights[0].endswith("splitmask-cars-sweep-s-seed0/backbone-at-0.0111111.safetensors")
    assert weights[-1].endswith("backbone-at-1.safetensors")
    assert [stage.scores for stage in finetunings] == [((score, "test/accuracy"),) for score in row.paper]


def test_the_list_names_every_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["reproduce"]) == 0
    printed = capsys.readouterr().out
    assert all(f" {row.name} " in printed for row in ALL)
    assert "46.8, 67.9, 51.5, 42.1, 65.3, 45.1" in printed
    assert "not in the text" in printed


def test_a_narrow_terminal_hides_nothing_of_the_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["reproduce", "table1"]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "│ supervised-imagenet-10 │ Supervised, ViT-S     │ 375,343 + 77,708 │ 75.0     │" in printed
    assert "(--pretrain_root)" in printed


def test_the_json_holds_the_commands_and_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table6", "--json", "--scale", "0.01"]) == 0
    entries = {entry["row"]: entry for entry in json.loads(capsys.readouterr().out)}
    cars = entries["splitmask-s-cars"]
    assert cars["paper"] == {"top-1": 92.8}
    assert [training["steps"] for training in cars["trainings"]] == [199, 24]
    assert cars["trainings"][0]["command"].startswith("lit-splitmask pretrain --recipe=splitmask_cars")
    assert not entries["liu-cvt13-clipart"]["runs"]


def test_a_dry_run_prints_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table8", "--row", "beit", "--dry_run", "--seeds", "0,1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["pretrain", "finetune", "probe"] * 2
    assert "--model.seed=1" in lines[3]


def test_the_page_is_made_from_the_rows() -> None:
    path = Path(__file__).parents[3] / "docs" / "reproduce.md"
    assert path.read_text() == page.page(), "run: python -m lit_splitmask.commands.reproduce.page > docs/reproduce.md"
