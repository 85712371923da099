"""Configuration files: recipes, saved runs and ``predict.yaml``. Those of earlier versions are brought up to date."""

import importlib
import os
import re
from pathlib import Path
from typing import Any

import yaml

from lit_splitmask.errors import UserError

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
"""Settings that have another name now. Classify took this one auxiliary loss alone."""


def read_settings(path: str | Path) -> dict[str, Any]:
    """Reads the settings in a YAML file, brought up to date.

    Raises:
        UserError: The file does not exist, is not UTF-8 text or valid YAML, or holds no settings.
    """
    try:
        settings = up_to_date(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"The configuration {path} cannot be read ({error}). Check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"The configuration {path} is not UTF-8 text ({error}). Give a YAML file.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2001-99-99
        raise UserError(f"The configuration {path} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"The configuration {path} holds no settings. Give a YAML file of names and values.")
    return settings


def settings_in(config: str) -> dict[str, Any]:
    """The settings in a configuration file; empty for anything else that ``--config`` takes, such as settings as JSON.

    Raises:
        UserError: The file is not UTF-8 text or valid YAML, or holds no settings.
    """
    return read_settings(config) if os.path.isfile(config) else {}  # Path.is_file raises for a text that is too long


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
