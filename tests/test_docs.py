"""The pages: Python snippets run, command lines parse, links lead somewhere, and the map of the code is complete."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from coco_sets import write_set
from PIL import Image
from scenes import write_scenes
from test_layers import FLOORS
from tiny_runs import one_thread, pretrain_module  # noqa: F401

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.cli import COMMANDS, main
from lit_splitmask.commands.help import help_of
from lit_splitmask.commands.request import Request

pytestmark = pytest.mark.filterwarnings("ignore")  # of tiny trainings: short logs, no workers

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = [README, *sorted((ROOT / "docs" / "guide").glob("*.md"))]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

SHORTER = [
    (r'ImageFolder\("photos"', 'ImageFolder("photos", num_workers=0'),
    (r"batch_size=(64|256)", "batch_size=8"),
    (r"passes=\d+", "passes=1"),
    (r"max_epochs=\d+", "max_epochs=1"),
    (r'OverfitAwareCheckpoint\(("[^"]+")', r"OverfitAwareCheckpoint(\1, most_cost=1e9"),  # measures in a short run too
]
"""What is replaced in Python snippets so that they train for seconds, by regular expression."""

PRINTED = ("pretrain", "finetune", "fit", "validate", "test", "predict")
"""Commands whose parser of all settings checks a command line with ``--print_config``."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> list[list[str]]:
    """The words of each ``lit-splitmask`` command line of a page, without the program."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["lit-splitmask"]]


def value_of(arguments: list[str], name: str) -> str | None:
    """The value of an option, after a space or an equals sign."""
    for index, word in enumerate(arguments):
        if word.partition("=")[0] == name:
            return word.partition("=")[2] if "=" in word else arguments[index + 1]
    return None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_folder: Callable[..., Path]) -> Path:
    """The current directory, with ``photos`` and the weights of a pre-training on them."""
    monkeypatch.chdir(tmp_path)
    class_folder(per_class=6, name="photos")
    ExportWeights("runs/pretrain-photos/backbone.safetensors").export(pretrain_module(), step=0)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in GUIDE if blocks(page, "python")], ids=name_of)
def test_the_python_snippets_of_a_page_run_one_after_the_other(page: Path, here: Path) -> None:
    names: dict[str, Any] = {"__name__": "snippets"}
    if page.stem == "weights":
        assert main(["embed", "--data.root", "photos", "--data.num_workers", "0", "--out", "features.npz"]) == 0
    for number, code in enumerate(blocks(page, "python"), start=1):
        for pattern, shorter in SHORTER:
            code = re.sub(pattern, shorter, code)
        exec(compile(code, f"{page.name}, snippet {number}", "exec"), names)


def write_what_is_named(command: str, arguments: list[str]) -> None:
    """Writes the folders, lists, weights and runs that a command line names."""
    root = Request.read(command, arguments).root
    weights, config = (value_of(arguments, name) for name in ("--weights", "--config"))
    if root is not None and not Path(root).exists():
        makers: dict[str, Callable[[Path], Any]] = {"streets": write_scenes, "facades": write_set}
        makers.get(Path(root).parts[0], _write_photos)(Path(Path(root).parts[0]))
    for folder in yaml.safe_load(value_of(arguments, "--data.pool") or "[]"):
        _write_photos(Path(folder))
    if (target := value_of(arguments, "--data.target")) is not None:
        Path(str(value_of(arguments, "--data.manifest"))).write_text(f"path,{target}\na.png,1\nb.png,2\n")
    if weights is not None:
        ExportWeights("weights.safetensors").export(pretrain_module(), step=0)
        Path(weights).parent.mkdir(parents=True, exist_ok=True)
        Path("weights.safetensors").replace(weights)
    if config is not None:
        path = Path(config)
        task = "Segment" if "streets" in config else "Detect" if "facades" in config else "Classify"
        data = {"Segment": "SegmentationFolder", "Detect": "CocoDetection"}.get(task, "ImageFolder")
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump({"model": {"class_path": task}, "data": {"class_path": data}}))


def _write_photos(folder: Path) -> None:
    for name in ("leaf", "stem"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (64, 48), "teal").save(folder / name / "photo.png")


@pytest.mark.parametrize(
    ("page", "arguments"),
    [
        pytest.param(page, arguments, id=f"{page.stem}: {' '.join(arguments)[:60]}")
        for page in GUIDE
        for arguments in command_lines(page)
    ],
)
def test_a_command_line_parses(
    page: Path,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, *options = arguments
    assert command in COMMANDS
    text = help_of(command)
    monkeypatch.chdir(tmp_path)
    if "--resume" in options:
        name = value_of(options, "--name") or "alone"
        _write_run(Path("runs") / name, capsys)
    else:
        write_what_is_named(command, options)
    if command in PRINTED:
        assert main([*arguments, "--print_config"]) == 0, capsys.readouterr().err
        return
    names = [word.partition("=")[0] for word in options if word.startswith("--")]
    assert not names or text is not None
    assert [name for name in names if not re.search(rf"{re.escape(name)}(?![\w.])", text or "")] == []


def _write_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes what a resume reads of a pre-training."""
    (folder / "checkpoints").mkdir(parents=True)
    _write_photos(Path("photos"))
    assert main(["pretrain", "--recipe", "splitmask_cpu", "--data.root", "photos", "--print_config"]) == 0
    (folder / "config.yaml").write_text(capsys.readouterr().out)
    torch.save({"state_dict": {}}, folder / "checkpoints" / "last.ckpt")


def test_the_guide_names_every_command() -> None:
    named = {arguments[0] for page in GUIDE for arguments in command_lines(page)}
    assert set(COMMANDS) - named <= {"validate"}  # beside fit, test and predict


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The file and the anchor of each link of a page that leads into the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{path} does not exist"
        assert not anchor or anchor in anchors(target), f"{path} has no heading {anchor}"


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_repository_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`(?:python )?((?:lit_splitmask|tests|benchmarks|docs)/[\w./]+)(?=[`\s])", text):
        assert (ROOT / path.rstrip("./")).exists(), path


def test_the_floors_on_the_architecture_page_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    parts_on_map = re.findall(r"`(\w+)/?`", page.partition("## The floors")[0])
    assert set().union(*FLOORS) <= set(parts_on_map)
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", page, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(FLOORS) + 1))
    assert [set(re.findall(r"`(\w+)`", parts)) for _, parts in rows] == FLOORS
