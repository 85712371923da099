"""Imports point down only, and nothing below the LightningModules knows Lightning."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lit_splitmask"

FLOORS = [
    {"errors", "units", "shell", "allocator", "seeding", "distributed", "contract"},
    {"files", "pickles", "views", "masking", "losses"},
    {"images", "models", "optim", "weight_names", "weight_values", "reserved"},
    {"annotations", "checkpoints", "mixing", "probing", "config_files"},
    {"augment", "tokenizers", "selection", "streamed_probing"},
    {"loading", "objectives"},
    {"datamodules", "modules"},
    {"callbacks"},
    {"comparison", "recipes"},
    {"commands"},
    {"cli"},
    {"demo", "__main__"},
]
"""Parts of the package, from the lowest up. A part may import those on lower floors only: neighbours do not know each other."""

NO_LIGHTNING_UP_TO = "objectives"
TORCH_AND_NUMPY_ONLY_UP_TO = "losses"

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    """The module or subpackage of lit_splitmask that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(part: str) -> int:
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


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


def files_up_to(part: str) -> list[Path]:
    return [path for path in FILES if floor_of(part_of(path)) <= floor_of(part)]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_part_has_a_floor() -> None:
    assert {part_of(path) for path in FILES} == set().union(*FLOORS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    for other in imported_parts(path) - {part}:
        assert floor_of(other) < floor_of(part), f"{path} imports {other}, which is not on a lower floor"


@pytest.mark.parametrize("path", files_up_to(NO_LIGHTNING_UP_TO), ids=name_of)
def test_methods_and_what_is_below_them_are_pure_torch(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"lightning", "pytorch_lightning", "torchmetrics", "jsonargparse"}


@pytest.mark.parametrize("path", files_up_to(TORCH_AND_NUMPY_ONLY_UP_TO), ids=name_of)
def test_the_lowest_floors_need_torch_and_numpy_only(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"timm", "faiss", "torchvision", "safetensors", "PIL"}


def test_no_room_holds_more_than_a_fifth_of_the_package() -> None:
    sizes: dict[str, int] = {}
    for path in FILES:
        room = path.parent.relative_to(PACKAGE).as_posix()
        sizes[room] = sizes.get(room, 0) + len(path.read_text(encoding="utf-8").splitlines())
    largest = max(sizes, key=lambda room: sizes[room])
    assert sizes[largest] <= sum(sizes.values()) / 5, f"{largest} holds {sizes[largest]} of {sum(sizes.values())} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_longer_than_350_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350
