"""Configuration files: recipes, saved runs, ``predict.yaml``. Those of earlier versions are brought up to date."""

import importlib
import os
import re
from pathlib import Path
from typing import Any

import yaml

from lit_splitmask.errors import UserError

_PRIVATE_DATAMODULE = re.compile(r"lit_splitmask\.datamodules\.[a-z_]+\.(\w+)")
"""``predict.yaml`` once named the modules of datamodules, which have moved since."""

_REMOVED = {
    "SegmentationFolder": ("crop_ratio", "eval_batch_size"),
    "CocoDetection": ("crop_ratio",),
}
"""Settings that had no meaning, by the class that took them."""


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        UserError: The file does not exist, is not valid YAML, or holds something other than settings.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The configuration {path} cannot be read ({error}). Check the path.") from None
    try:
        settings = load_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"The configuration {path} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"The configuration {path} holds no settings.")
    return settings


def settings_in(config: str) -> dict[str, Any]:
    """The settings of a configuration file; empty for anything else that ``--config`` takes, such as settings as JSON.

    Raises:
        UserError: The file is not valid YAML, or holds no settings.
    """
    return read_settings(config) if os.path.isfile(config) else {}  # Path.is_file raises for a text that is too long


def load_yaml(text: str) -> Any:
    """YAML as plain values, with class paths and settings of earlier versions brought up to date."""
    return up_to_date(yaml.safe_load(text))


def up_to_date(value: Any) -> Any:
    """A configuration with today's class paths, and without settings that no longer exist."""
    if isinstance(value, list):
        return [up_to_date(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    settings = {key: up_to_date(entry) for key, entry in value.items()}
    class_path = settings.get("class_path")
    if isinstance(class_path, str):
        settings["class_path"] = current_path(class_path)
        arguments = settings.get("init_args")
        removed = _REMOVED.get(class_path.rpartition(".")[2], ())
        if isinstance(arguments, dict):
            settings["init_args"] = {name: entry for name, entry in arguments.items() if name not in removed}
    return settings


def current_path(class_path: str) -> str:
    """Where a class is now."""
    private = _PRIVATE_DATAMODULE.fullmatch(class_path)
    return f"lit_splitmask.datamodules.{private.group(1)}" if private else class_path


def public_path(cls: type) -> str:
    """The shortest dotted path from which a class can be imported: that of a package that exports it, not of a module in it."""
    parts = cls.__module__.split(".")
    for length in range(1, len(parts) + 1):
        module = importlib.import_module(".".join(parts[:length]))
        if getattr(module, cls.__name__, None) is cls:
            return f"{module.__name__}.{cls.__name__}"
    raise ValueError(f"{cls} cannot be imported from {cls.__module__}.")
