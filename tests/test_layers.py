"""Imports point down only, and nothing below the LightningModules knows Lightning."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lit_splitmask"

LAYERS = [
    {"errors", "atomic", "allocator", "seeding", "distributed", "views", "masking", "losses"},
    {"mixing", "models", "tokenizers", "optim", "checkpoints", "probing", "selection", "rle"},
    {"objectives"},
    {"modules", "datamodules", "callbacks"},
    {"comparison", "commands", "cli", "demo", "recipes"},
]
FORBIDDEN_BESIDE = {
    "modules": {"datamodules", "callbacks"},
    "datamodules": {"modules", "callbacks", "objectives"},
    "callbacks": set(),
}
"""Which parts of the same layer, or of a lower one, a part of the fourth layer may not know."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    """The module or subpackage of lit_splitmask that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_parts(path: Path) -> set[str]:
    """The parts of lit_splitmask that a file imports."""
    names = [name.split(".") for name in imported(path)]
    return {name[1] for name in names if name[0] == "lit_splitmask" and len(name) > 1 and not name[1].startswith("__")}


def parts() -> set[str]:
    return {part_of(path) for path in FILES}


def test_every_part_has_a_layer() -> None:
    assert parts() <= set().union(*LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    for other in imported_parts(path) - {part}:
        assert layer_of(other) <= layer_of(part), f"{path} imports {other} from above"
        assert other not in FORBIDDEN_BESIDE.get(part, set()), f"{path} must not know {other}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if layer_of(part_of(path)) <= 2], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_methods_and_what_is_below_them_are_pure_torch(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"lightning", "pytorch_lightning", "torchmetrics", "jsonargparse"}


@pytest.mark.parametrize(
    "path", [path for path in FILES if layer_of(part_of(path)) == 0], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_lowest_layer_needs_torch_and_numpy_only(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"timm", "faiss", "torchvision", "safetensors"}


def test_nothing_but_the_demo_imports_the_command_line() -> None:
    assert {part_of(path) for path in FILES if "cli" in imported_parts(path)} - {"cli"} <= {"demo"}


def test_there_are_no_circles_among_parts() -> None:
    edges = {part: set().union(*(imported_parts(p) for p in FILES if part_of(p) == part)) - {part} for part in parts()}
    done: set[str] = set()
    while left := edges.keys() - done:
        ready = {part for part in left if edges[part] <= done}
        assert ready, f"these import each other in a circle: {sorted(left)}"
        done |= ready
