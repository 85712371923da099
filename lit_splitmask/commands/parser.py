"""The parsers of the commands, with short errors; LightningCLI's also reads configuration files of earlier versions."""

import argparse
import re
import sys
from typing import Any, NoReturn

import yaml
from jsonargparse import get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from lit_splitmask.commands.processes import error_prefix
from lit_splitmask.config_files import check_yaml, up_to_date

CONFIG_MODE = "lit_splitmask"
"""The parser mode in which configuration files are read."""


def _load(text: str) -> Any:
    check_yaml(text)
    try:
        return up_to_date(get_loader("yaml")(text))
    except ValueError as error:  # a whole number of thousands of digits
        raise yaml.YAMLError(str(error)) from None


set_loader(CONFIG_MODE, _load, exceptions=(yaml.YAMLError,))


class ShortErrors:
    """Reports a wrong option in one paragraph, and exits with code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"{error_prefix()}: {shorten(message)}", file=sys.stderr)
        raise SystemExit(2)


class Parser(ShortErrors, LightningArgumentParser):
    """LightningCLI's parser, for options that are arguments of classes."""


class OptionParser(ShortErrors, argparse.ArgumentParser):
    """argparse's parser, for a few plain options."""


def _list(text: str) -> list[str | int | float]:
    """``a,b`` or ``[a, b]``."""
    try:
        value = yaml.safe_load(text if text.startswith("[") else f"[{text}]")
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as a,b or '[a, b]'") from None
    return list(value)


def words(text: str) -> tuple[str, ...]:
    """The value of an option that is a list of words, as ``a,b`` or ``'[a, b]'``.

    Raises:
        argparse.ArgumentTypeError: It is not a list.
    """
    return tuple(str(entry) for entry in _list(text))


def numbers(text: str) -> tuple[float, ...]:
    """The value of an option that is a list of numbers, as :func:`words`.

    Raises:
        argparse.ArgumentTypeError: It is not a list of numbers.
    """
    try:
        return tuple(float(entry) for entry in _list(text))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,0.1") from None


def shorten(message: str) -> str:
    """The parts of jsonargparse's message that help the user to fix the error."""
    text = str(message)
    name = re.search(r"(?:Parser key|argument) [\"']?([\w.+-]+)[\"']?", text)
    unknown_class = re.search(
        r"Expected a path but ([\w.]+)|Expected a dot import path string: ([\w.]+)|class_path='([\w.]+)'", text
    )
    hints = ("Expected a dot import", "No module named", "has no attribute", "valid subclass")
    if unknown_class and any(hint in text for hint in hints):
        given = next(group for group in unknown_class.groups() if group)
        where = f" for {name.group(1)}" if name else ""
        return (
            f"There is no class {given!r}{where}: give the name of a class, such as ImageFolder, SplitMask, RandomProjection, "
            "KMeans or UniformMasking, or a full import path (package.module.Class)."
        )
    if re.search(r"arguments are required: (data|root|data\.init_args\.root)$", text):
        return "The folder of images is missing: give --data.root DIR."
    lines = [line.strip(" -") for line in text.splitlines() if line.strip(" -")]
    short = " ".join(dict.fromkeys(lines))
    wrong = re.fullmatch(
        r"Parser key \"(.+?)\": Expected a (<class '(\w+)'>|typing\.Literal\[(.*)\])\. Got value: (.*)", short
    )
    if wrong:
        option, _, kind, choices, value = wrong.groups()
        return f"{option} is {value}, but must be {f'of type {kind}' if kind else f'one of {choices}'}."
    return short
