"""What users see of the code: names that exist and say what they are."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import lit_splitmask

MODULES = sorted(info.name for info in pkgutil.walk_packages(lit_splitmask.__path__, "lit_splitmask."))
PACKAGES = ("callbacks", "datamodules", "models", "modules", "objectives", "tokenizers")


def public_members(module: ModuleType) -> dict[str, object]:
    """Classes and functions that a module defines under a public name."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_name_exists_and_is_documented(package: str) -> None:
    module = importlib.import_module(f"lit_splitmask.{package}")
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        documentation = inspect.getdoc(getattr(module, name))
        assert documentation, name
        assert documentation.splitlines()[0].strip().endswith((".", ":")), name


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    if module.__file__ and not name.endswith(".recipes"):
        assert module.__doc__, name


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_and_function_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    for member, value in public_members(module).items():
        own = value.__doc__
        # a dataclass without a docstring gets its signature as one
        assert own, f"{name}.{member}"
        assert not own.startswith(f"{member}("), f"{name}.{member}"


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_of_a_public_function_is_typed(name: str) -> None:
    for member, value in public_members(importlib.import_module(name)).items():
        function = value.__init__ if inspect.isclass(value) else value  # type: ignore[misc]
        if not inspect.isfunction(function) or function.__module__ != name:
            continue
        for parameter in inspect.signature(function).parameters.values():
            assert parameter.name == "self" or parameter.annotation is not parameter.empty, f"{name}.{member}"


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert version("lit-splitmask") == lit_splitmask.__version__
