"""Every public class has an example in its docstring, and the examples run."""

import csv
import doctest
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from coco_sets import write_set
from scenes import write_scenes
from tiny_runs import one_thread  # noqa: F401

PACKAGES = ("objectives", "callbacks", "datamodules", "modules")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


def exported(package: str) -> dict[str, object]:
    """The public classes and functions of a package by name."""
    module = importlib.import_module(f"lit_splitmask.{package}")
    return {name: getattr(module, name) for name in module.__all__}


def examples_of(member: object, name: str) -> list[doctest.DocTest]:
    """The examples in the docstrings of a class and its methods, or of a function."""
    return [test for test in doctest.DocTestFinder().find(member, name) if test.examples]


MEMBERS = [(package, name) for package in PACKAGES for name in exported(package)]
CLASSES = [(package, name) for package, name in MEMBERS if inspect.isclass(exported(package)[name])]


@pytest.fixture
def images(class_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples read: photos in class folders, a list of them, scenes with label maps, and a COCO set."""
    photos = class_folder(per_class=8, name="photos")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = [(path.relative_to(tmp_path), path.parent.name) for path in sorted(photos.rglob("*.png"))]
        csv.writer(file).writerows([("path", "label"), *rows])
    with (tmp_path / "wear.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "millimetres"), *((path, n / 4) for n, (path, _) in enumerate(rows))])
    write_scenes(tmp_path / "streets")
    write_set(tmp_path / "facades")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("package", "name"), CLASSES)
def test_every_exported_class_has_an_example(package: str, name: str) -> None:
    member = exported(package)[name]
    assert ">>> " in (member.__doc__ or ""), f"{package}.{name} has no example"
    assert any(name in example.source for test in examples_of(member, name) for example in test.examples)


@pytest.mark.parametrize(("package", "name"), MEMBERS)
@pytest.mark.usefixtures("images")
def test_examples_run(package: str, name: str) -> None:
    report: list[str] = []
    for test in examples_of(exported(package)[name], name):
        doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)
