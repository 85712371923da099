"""The pages: Python snippets run, links lead somewhere, what is named exists, and the map of the code is complete."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, README, ROOT, blocks, name_of, ours, shell_lines, spans
from test_layers import FLOORS
from tiny_runs import one_thread, pretrain_module  # noqa: F401

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")  # of tiny trainings: short logs, no workers

SHORTER = [
    (r'ImageFolder\("photos"', 'ImageFolder("photos", num_workers=0'),
    (r"batch_size=(64|256)", "batch_size=8"),
    (r"passes=\d+", "passes=1"),
    (r"max_epochs=\d+", "max_epochs=1"),
    (r'OverfitAwareCheckpoint\(("[^"]+")', r"OverfitAwareCheckpoint(\1, most_cost=1e9"),  # measures in a short run too
]
"""What is replaced in Python snippets so that they train for seconds, by regular expression."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_folder: Callable[..., Path]) -> Path:
    """The current directory, with ``photos`` and the weights of a pre-training on them."""
    monkeypatch.chdir(tmp_path)
    class_folder(per_class=6, name="photos")
    ExportWeights("runs/pretrain-photos/backbone.safetensors").export(pretrain_module(), step=0)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_the_python_snippets_of_a_page_run_one_after_the_other(page: Path, here: Path) -> None:
    names: dict[str, Any] = {"__name__": "snippets"}
    if page.stem == "weights":
        assert main(["embed", "--data.root", "photos", "--data.num_workers", "0", "--out", "features.npz"]) == 0
    for number, code in enumerate(blocks(page, "python"), start=1):
        for pattern, shorter in SHORTER:
            code = re.sub(pattern, shorter, code)
        exec(compile(code, f"{page.name}, snippet {number}", "exec"), names)


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


def other_programs(page: Path) -> Iterator[list[str]]:
    """The words of the commands of a page that run another program than ours, also those in its text."""
    yield from (words for words in shell_lines(page) if ours(words) is None)
    yield from (span.split() for span in spans(page) if span.startswith(("make ", "pip install ", "python ")))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_says_to_make_install_or_run_exists(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    extras = re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for words in other_programs(page):
        line = " ".join(words)
        if words[0] == "make":
            assert words[1] in targets, line
        for extra in re.findall(r"\[(\w+)\]", line) if words[0] == "pip" else ():
            assert extra in extras, line
        script = next((ROOT / word for word in words if word.endswith(".py") and "/" in word), None)
        if script is not None:
            text = script.read_text(encoding="utf-8")
            options = [word for word in words if word.startswith("--")]
            assert [name for name in options if f'"{name}"' not in text] == [], line
        for word in words if "pytest" in words else ():
            assert not word.startswith("tests") or (ROOT / word).exists(), line
