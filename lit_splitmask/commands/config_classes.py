"""What a configuration may build: objects of a few kinds, named by their classes. Checked before anything is built."""

import inspect
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any, get_args, get_type_hints

from jsonargparse import Namespace
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO, ClusterEnvironment, LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset, Sampler

from lit_splitmask.errors import UserError

KINDS: tuple[type, ...] = (
    nn.Module,
    LightningDataModule,
    Callback,
    Logger,
    Profiler,
    Strategy,
    Accelerator,
    Precision,
    CheckpointIO,
    ClusterEnvironment,
    LayerSync,
    Optimizer,
    LRScheduler,
    Dataset,
    Sampler,
)
"""What may be built wherever a setting takes it, besides classes of this package and those that a setting's type names."""

_PACKAGE = __name__.partition(".")[0]


def check_classes(settings: Any) -> None:
    """Checks that every ``class_path`` of a parsed configuration names a class of an allowed kind.

    jsonargparse also calls functions there, with any arguments: ``os.system`` for an objective would run a command.

    Args:
        settings: The parsed configuration, from files and the command line, before it is instantiated.

    Raises:
        UserError: One names a function, or a class of another kind.
    """
    for name, path, found, hint in _named(settings, "", None):
        if not inspect.isclass(found):
            raise UserError(
                f"{name} names {path}, which is not a class: a configuration creates objects and calls no functions, so "
                "that a file from elsewhere cannot run commands. Name a class."
            )
        is_ours = found.__module__.partition(".")[0] == _PACKAGE
        if not (is_ours or issubclass(found, KINDS) or _is_meant(found, hint)):
            raise UserError(
                f"{name} names {path}, which is not a class that a configuration may build (modules, datamodules, callbacks, "
                "loggers and the like, or what the type of a setting names), so that a file from elsewhere cannot run commands. "
                "Name such a class, or build this object in a class of your own."
            )


def _named(value: Any, name: str, hint: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """What nested settings name by ``class_path``: the setting, the path, what it leads to, and the type of the setting."""
    value = vars(value) if isinstance(value, Namespace) else value
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _named(entry, name, hint)
    if not isinstance(value, Mapping):
        return
    hints = _hints(Trainer) if name == "trainer" else {}
    children = dict(value)
    if isinstance(path := value.get("class_path"), str) and (found := _lead_to(path)) is not None:
        yield name or "The configuration", path, found, hint
        hints = _hints(found) if inspect.isclass(found) else {}
        children = {**_entries(value.get("init_args")), **_entries(value.get("dict_kwargs"))}
    for key, entry in children.items():
        yield from _named(entry, f"{name}.{key}" if name else str(key), hints.get(str(key)))


def _lead_to(path: str) -> Any:
    """What an import path leads to; None for a text that is not one; jsonargparse cannot build anything from it either."""
    try:
        return resolve_name(path)
    except (ImportError, AttributeError, ValueError):
        return None


def _entries(settings: Any) -> Mapping[str, Any]:
    settings = vars(settings) if isinstance(settings, Namespace) else settings
    return settings if isinstance(settings, Mapping) else {}


def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's parameters, also of those that it passes on to its bases."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        try:
            hints |= get_type_hints(base.__init__)  # type: ignore[misc]
        except Exception:  # annotations are other libraries' code, which may raise anything; nothing is known then
            continue
    return hints


def _is_meant(found: type, hint: Any) -> bool:
    """Whether a type that is not general names this class's base: by itself, in a union or a container, or as a result."""
    if inspect.isclass(hint) and not get_args(hint):
        return hint is not object and hint in found.__mro__
    return any(_is_meant(found, part) for part in get_args(hint) if not isinstance(part, list))
