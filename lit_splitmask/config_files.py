"""Configuration files: recipes, saved runs and ``predict.yaml``. Those of earlier versions are brought up to date."""

import importlib
import os
import re
from pathlib import Path
from typing import Any

import yaml

from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file, read_text

MOST_CHARACTERS = 2**17
"""Longest configuration; those of runs have about 5,000."""

_MOST_DIGITS = 100

MOST_NODES = 100_000
"""Most values of a configuration with its aliases written out: nine short lines can stand for a billion."""

_PRIVATE_DATAMODULE = re.compile(r"^lit_splitmask\.datamodules\.[a-z_]+\.(\w+)$")
"""Class paths in ``predict.yaml`` files of earlier versions: they name modules that have moved since."""

_REMOVED_SETTINGS = {
    "SegmentationFolder": {"crop_ratio", "eval_batch_size"},
    "CocoDetection": {"crop_ratio"},
}
"""Settings that earlier versions wrote and that had no effect, by datamodule."""

_TAKE_A_POOL = ("ImageFolder", "Manifest")
"""Earlier versions wrote ``pool: []`` for the published datasets too, which refused any other value."""


_RENAMED = {"relative_localisation": "auxiliary"}
"""Settings that have another name now. Classify used to take only this auxiliary loss."""


def read_settings(path: str | Path) -> dict[str, Any]:
    """Reads the settings in a YAML file, brought up to date.

    Raises:
        UserError: The file does not exist, is not a regular file, is not UTF-8 text or valid YAML, is too large, or holds no
            settings.
    """
    try:
        text = read_text(path)
        check_yaml(text)
        settings = up_to_date(yaml.safe_load(text))
    except OSError as error:
        raise UserError(f"The configuration {path} cannot be read ({error}). Check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"The configuration {path} is not UTF-8 text ({error}). Give a YAML file.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2001-99-99
        raise UserError(f"The configuration {path} is not valid YAML: {error}") from None
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise UserError(f"The configuration {path} holds no settings. Give a YAML file of names and values.")
    return settings


def check_yaml(text: str) -> None:
    """Checks that a YAML text is of a size that configurations have, before it is parsed.

    Raises:
        yaml.YAMLError: It is too long, is nested too deeply, contains itself, its aliases stand for too many values, or it is not
            valid.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters, and a configuration has at most {MOST_CHARACTERS:,}")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _num_nodes(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"its aliases (*name) stand for more than {MOST_NODES:,} values: write them out")
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def _num_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values in a YAML node, those of an alias counted each time.

    Args:
        node: The node.
        known: The numbers of nodes that are counted already, by identity; 0 for those being counted.
    """
    if not isinstance(node, yaml.CollectionNode):
        if len(node.value) > _MOST_DIGITS and node.tag.endswith((":int", ":float")):
            raise yaml.YAMLError(f"a number in it has {len(node.value):,} characters")
        return 1
    if id(node) in known:
        if known[id(node)] == 0:
            raise yaml.YAMLError("an alias (*name) in it contains itself")
        return known[id(node)]
    known[id(node)] = 0
    parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    known[id(node)] = number = 1 + sum(_num_nodes(part, known) for part in parts)
    return number


def settings_in(config: str) -> dict[str, Any]:
    """The settings in a configuration file; empty for anything else that ``--config`` takes, such as settings as JSON.

    Raises:
        UserError: The file is not UTF-8 text or valid YAML, or holds no settings.
    """
    if not is_file(config) and os.path.exists(config) and not os.path.isdir(config):
        raise UserError(f"The configuration {config} is a pipe or a device, but must be a file: save it as one.")
    return read_settings(config) if is_file(config) else {}


def up_to_date(config: Any) -> Any:
    """Brings a configuration of an earlier version up to date: class paths that moved, settings that were
    removed or have another name.

    Args:
        config: Dicts, lists and plain values, nested, as YAML gives them; not changed.
    """
    if isinstance(config, list):
        return [up_to_date(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    settings = {_RENAMED.get(key, key): up_to_date(entry) for key, entry in config.items()}
    class_path, arguments = settings.get("class_path"), settings.get("init_args")
    if not isinstance(class_path, str):
        return settings
    settings["class_path"] = class_path = _PRIVATE_DATAMODULE.sub(r"lit_splitmask.datamodules.\1", class_path)
    package, _, name = class_path.rpartition(".")
    if isinstance(arguments, dict) and package in ("", "lit_splitmask.datamodules"):
        removed = _REMOVED_SETTINGS.get(name, set())
        if name not in _TAKE_A_POOL and arguments.get("pool") == []:
            removed = removed | {"pool"}
        settings["init_args"] = {key: entry for key, entry in arguments.items() if key not in removed}
    return settings


def public_path(cls: type) -> str:
    """The shortest dotted path to import a class from: of the package that exports it rather than the module that defines it.

    Raises:
        ValueError: The class cannot be imported, as it is defined in a function.
    """
    parts = cls.__module__.split(".")
    for length in range(1, len(parts) + 1):
        module = importlib.import_module(".".join(parts[:length]))
        if getattr(module, cls.__name__, None) is cls:
            return f"{module.__name__}.{cls.__name__}"
    raise ValueError(f"{cls} cannot be imported from {cls.__module__}.")
