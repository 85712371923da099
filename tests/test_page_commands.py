"""The commands on the pages: each is read by its real parser, and those of the README and the guide run."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from coco_sets import write_set
from pages import PAGES, README, RECIPES, ROOT, command_lines, name_of, spans
from replicas import REPLICAS
from scenes import write_scenes
from shapes import write_classes
from tiny_runs import one_thread, pretrain_module  # noqa: F401

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.cli import COMMANDS, main
from lit_splitmask.commands.compare.experiment import Comparison
from lit_splitmask.commands.parser import OptionParser, Parser
from lit_splitmask.commands.request import Request

pytestmark = pytest.mark.filterwarnings("ignore")  # of tiny trainings: short logs, no workers

GUIDE = [README, *sorted((ROOT / "docs" / "guide").glob("*.md"))]


def value_of(arguments: list[str], name: str) -> str | None:
    """The value of an option, after a space or an equals sign."""
    for index, word in enumerate(arguments):
        if word.partition("=")[0] == name:
            return word.partition("=")[2] if "=" in word else arguments[index + 1]
    return None


class Read(Exception):  # noqa: N818
    """The options of a command have been read."""


def read(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """Lets the parser of a command read its options, and ends it there; a comparison once its recipe has been read."""
    inside = []  # jsonargparse's parsers read nested settings by parsers of their own class

    def end(*_: Any) -> None:
        raise Read("read")

    def wrapped(whole: Callable[..., Any]) -> Callable[..., Any]:
        def parse(*given: Any, **named: Any) -> Any:
            inside.append(whole)
            options = whole(*given, **named)
            inside.pop()
            return options if inside else end()

        return parse

    if arguments[0] == "compare":
        patch.setattr(Comparison, "run", end)
    else:
        for kind in (OptionParser, Parser):
            patch.setattr(kind, "parse_args", wrapped(kind.parse_args))
    with pytest.raises(Read):
        main(arguments)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "streets": write_scenes,
    "facades": write_set,
    "stanford_cars": REPLICAS["StanfordCars"],
}
"""Writes the images of a folder of this name; other folders are classes of shapes."""


def write_images(root: Path) -> None:
    """Writes the folder of images that a command names, unless it is there."""
    top = Path(root.parts[0]) if root.parts[0] in WRITERS else root
    if not top.exists():
        WRITERS.get(top.name, lambda folder: write_classes(folder, 8))(top)


def write_what_is_named(command: str, arguments: list[str]) -> None:
    """Writes the images, lists, weights and runs that a command line names, unless they are there."""
    request = Request.read(command, arguments)
    for root in filter(None, (request.root, *request.pool)):
        write_images(Path(root))
    weights, config = (value_of(arguments, name) for name in ("--weights", "--config"))
    if (target := value_of(arguments, "--data.target")) is not None:
        Path(str(value_of(arguments, "--data.manifest"))).write_text(f"path,{target}\na.png,1\nb.png,2\n")
    if weights is not None and not Path(weights).exists():
        ExportWeights("stand-in.safetensors").export(pretrain_module(), step=0)
        Path(weights).parent.mkdir(parents=True, exist_ok=True)
        Path("stand-in.safetensors").replace(weights)
    if config is not None and not Path(config).exists():
        task = "Segment" if "streets" in config else "Detect" if "facades" in config else "Classify"
        data = {"Segment": "SegmentationFolder", "Detect": "CocoDetection"}.get(task, "ImageFolder")
        Path(config).parent.mkdir(parents=True, exist_ok=True)
        Path(config).write_text(yaml.safe_dump({"model": {"class_path": task}, "data": {"class_path": data}}))
    if request.resume:
        write_run(Path(request.runs_dir) / (request.name or "alone"))


def write_run(folder: Path) -> None:
    """Writes what a resume reads of a pre-training."""
    (folder / "checkpoints").mkdir(parents=True)
    settings = {"runs_dir": "runs", "model": {"objective": {"class_path": "SplitMask"}}}
    data = {"class_path": "ImageFolder", "init_args": {"root": "photos"}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**settings, "data": data}))
    torch.save({"state_dict": {}}, folder / "checkpoints" / "last.ckpt")


def filled_in(arguments: list[str]) -> list[str]:
    """A command with a seed for S and a file for FILE, and with its folders below the current one."""
    weights = "runs/pretrain-photos/backbone.safetensors"
    stands_for = {"S": "0", "FILE": weights, "runs/…/backbone.safetensors": weights}
    return [stands_for.get(word, word.replace("/shared/", "shared/")) for word in arguments]


def is_whole(span: str) -> bool:
    """Whether inline code is a command that could be run: it has options, and no alternatives or parts left out."""
    return "--" in span and not re.search(r"[|…]|_NAME|COMMAND|--linear$", span)


def commands_of(page: Path) -> Iterator[list[str]]:
    """The commands of a page; those of the tables that are made from the paper's rows are read in test_rows.py."""
    yield from command_lines(page)
    if page.suffix == ".md" and page.name not in ("reproduce.md", "CHANGELOG.md"):
        yield from (span.split()[1:] for span in spans(page) if span.startswith("lit-splitmask ") and is_whole(span))


def for_both_stages(arguments: list[str]) -> Iterator[list[str]]:
    """The options that a comparison gives to its pre-training and fine-tuning, as their commands."""
    for command in ("pretrain", "finetune"):
        if (given := value_of(arguments, f"--set_{command}")) is not None:
            yield [command, "--data.root", "photos", *yaml.safe_load(given)]


FILES = {"--data.root", "--data.manifest", "--weights", "--config", "--name", "--out", "--runs_dir"}
"""Options whose values are names of files and folders."""


def kind_of(arguments: list[str]) -> tuple[str, ...]:
    """A command without its names of files and folders."""
    words = [part for word in arguments for part in word.split("=", 1)]
    return tuple(word for before, word in zip(["", *words], words, strict=False) if before not in FILES)


def to_read() -> Iterator[Any]:
    """The commands of each page, one of each kind; of the recipes, which other tests train, one with each set of options."""
    seen: set[tuple[str, ...]] = {
        ("--data.root", "--recipe", "pretrain"),
        ("--data.root", "--recipe", "--weights", "finetune"),
    }
    for page in [*PAGES, *RECIPES]:
        for arguments in commands_of(page):
            for given in (arguments, *for_both_stages(arguments)):
                kind = kind_of(given)
                if page.suffix == ".yaml":
                    kind = tuple(sorted({given[0], *(word for word in given if word.startswith("--"))}))
                if kind not in seen:
                    yield pytest.param(given, id=f"{page.stem}: {' '.join(given)[:60]}")
                seen.add(kind)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the files are written that commands name."""
    return tmp_path_factory.mktemp("desk")


@pytest.mark.parametrize("arguments", to_read())
def test_a_command_on_a_page_is_read_by_its_parser(
    arguments: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    command, *options = filled_in(arguments)
    assert command in COMMANDS
    write_what_is_named(command, options)
    if command in ("recipes", "completion") or {"--help_all", "--print_config"} & {*options}:  # nothing but read
        assert main([command, *options]) == 0
    else:
        read([command, *options], monkeypatch)


def test_the_guide_names_every_command() -> None:
    named = {arguments[0] for page in GUIDE for arguments in command_lines(page)}
    assert set(COMMANDS) - named <= {"validate"}  # beside fit, test and predict


TINY = [
    "--data.batch_size=4",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]
SMALL = ["--data.image_size=32", "--model.backbone.size=tiny", "--model.backbone.patch_size=8"]
"""For recipes of large networks."""

NOT_RUN = {
    "compare": "tests/commands/compare runs comparisons of each kind",
    "reproduce table": "tests/commands/reproduce runs rows of each table",
    "convert-dalle": "needs the file of OpenAI: tests/tokenizers converts one that is made up",
    "beit_dalle": "needs that encoder",
    "WandbLogger": "tests/commands/test_loggers.py, where it is installed",
    "MLFlowLogger": "tests/commands/test_loggers.py, where it is installed",
    "trainer.devices 4": "tests/test_distributed.py starts processes",
    "--resume": "tests/commands/test_training_commands.py stops a run and resumes it",
    "--data ImageNet": "no folder of class folders",
    "splits.labels several": "tests/modules/test_several_labels.py",
    "--data.target": "tests/commands/test_regression_commands.py",
}
"""Commands that are only read here, by a part of theirs, with the reason."""


def shortened(arguments: list[str]) -> list[str]:
    """A training of one step; other commands unchanged."""
    command, *rest = arguments
    if command == "plan":
        return [*arguments, "--no_timing"]
    if command in ("test", "predict"):
        return [*arguments, "--trainer.accelerator=cpu", "--data.num_workers=0", "--trainer.enable_progress_bar=false"]
    if command not in ("pretrain", "finetune", "fit") or "--print_config" in rest:
        return arguments
    given = value_of(rest, "--data.budget.passes")
    short = TINY if given is None else [f"--data.budget.passes={0.1}", *TINY]
    recipe = value_of(rest, "--recipe") or ""
    large = SMALL if "cars" in recipe and value_of(rest, "--weights") is None else []
    return [*arguments, *([] if given else ["--data.budget.steps=1"]), *short, *large]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[frozenset[str]]]:
    """A folder with the photos, a list of them, and what the commands of the README wrote; and these commands."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        images = sorted(write_classes(Path("photos"), 8).rglob("*.png"))
        Path("list.csv").write_text("\n".join(["path,label", *(f"{path},{path.parent.name}" for path in images)]))
        done: set[frozenset[str]] = set()
        run_all(README, done)
    return folder, done


def run_all(page: Path, done: set[frozenset[str]]) -> None:
    """Runs the commands of a page one after the other, apart from those that other tests run or that were run, ``done``."""
    for arguments in map(filled_in, command_lines(page)):
        if any(part in " ".join(arguments) for part in NOT_RUN):
            continue
        request = Request.read(arguments[0], arguments[1:])
        for root in filter(None, (request.root, *request.pool)):
            write_images(Path(root))
        if (command := frozenset([request.command, *map(str, request.options)])) not in done:
            assert main(shortened(arguments)) == 0, arguments
        done.add(command)


@pytest.mark.slow  # three trainings, an export, a probe: about 15 s
def test_the_commands_of_the_readme_run_in_their_order(trained: tuple[Path, set[frozenset[str]]]) -> None:
    for name in (
        "finetune-photos/classifier-onnx/model.onnx",
        "finetune-photos/report.html",
        "pretrain-photos/words.png",
    ):
        assert (trained[0] / "runs" / name).is_file()


@pytest.mark.slow  # about 40 trainings: a minute on a free core
@pytest.mark.parametrize("page", [page for page in GUIDE if page != README and command_lines(page)], ids=name_of)
def test_the_commands_of_a_page_of_the_guide_run(
    page: Path, trained: tuple[Path, set[frozenset[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, done = trained
    monkeypatch.chdir(folder)
    run_all(page, done)
