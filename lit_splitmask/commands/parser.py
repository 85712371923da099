"""The parsers of the commands, with short errors; LightningCLI's also reads configuration files of earlier versions."""

import argparse
import ast
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml
from jsonargparse import get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from lit_splitmask.commands.processes import error_prefix
from lit_splitmask.commands.suggestions import unknown_class, unknown_options, unknown_setting, wrong_value
from lit_splitmask.config_files import check_yaml, up_to_date
from lit_splitmask.shell import say

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
        unknown = re.match(r"unrecognized arguments: (.*)", str(message), re.DOTALL)
        known = getattr(self, "_option_string_actions", {})
        text = unknown_options(shlex.split(unknown.group(1)), known) if unknown else shorten(message)
        say(f"{error_prefix()}: {text}", sys.stderr)
        raise SystemExit(2)


class Parser(ShortErrors, LightningArgumentParser):
    """LightningCLI's parser, for options that are arguments of classes."""

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Any:  # type: ignore[override]
        """Parses options; null stays null in those of parts of a class, such as ``--data.budget.passes``."""
        if args is not None and not self.exit_on_error:  # a parser that jsonargparse makes for such a part
            args = [_with_null(argument) for argument in args]
        return super().parse_args(args, *rest, **settings)


def _with_null(argument: str) -> str:
    """An option with its value as YAML: jsonargparse hands values that it has read to a part's parser as Python prints them."""
    name, _, value = argument.partition("=")
    if "None" not in value:
        return argument
    try:
        return f"{name}={yaml.safe_dump(ast.literal_eval(value), default_flow_style=True)}"
    except (ValueError, SyntaxError, TypeError):
        return argument  # another text, with None in it


class OptionParser(ShortErrors, argparse.ArgumentParser):
    """argparse's parser, for a few plain options."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses options; one that is unknown is reported before one that is missing, which it may stand for."""
        given = [str(word).partition("=")[0] for word in args or ()]
        unknown = [word for word in given if word.startswith("--") and word not in self._option_string_actions]
        if unknown:
            self.error(f"unrecognized arguments: {shlex.join(unknown)}")
        return super().parse_args(args, namespace)


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
    unknown_class_name = re.search(
        r"Expected a path but ([\w.]+)|Expected a dot import path string: ([\w.]+)|class_path='([\w.]+)'", text
    )
    if setting := re.search(r"Option '([\w.-]+)' is not accepted", text):
        return unknown_setting(setting.group(1))
    if "is abstract" in text and "NestedArg(key=" in text:
        return (
            "The settings do not say how to read the images: give --data ImageFolder or another (--data Manifest for a list), "
            "or a recipe with --recipe NAME (lit-splitmask recipes lists them)."
        )
    hints = ("Expected a dot import", "No module named", "has no attribute", "valid subclass")
    if unknown_class_name and any(hint in text for hint in hints):
        given = next(group for group in unknown_class_name.groups() if group)
        return unknown_class(given, name.group(1) if name else None)
    if name and (part := re.search(r"Unable to load config ['\"](.+?)['\"]", text)):
        return unknown_class(part.group(1), name.group(1))
    if re.search(r"arguments are required: (data|root|data\.init_args\.root)$", text):
        return "The folder of images is missing: give --data.root DIR."
    several = re.search(r"Union subtypes\s+Subtypes: \[(.*?)\]\s+Errors:.*?Given value: (.*)", text, re.DOTALL)
    if name and several:
        return wrong_value(name.group(1), several.group(2).strip(), several.group(1))
    text = re.sub(r"NestedArg\(key='(.*?)', val=(.*?)\)", r"\1: \2", text)  # jsonargparse's own class
    lines = [line.strip(" -") for line in text.splitlines() if line.strip(" -")]
    short = " ".join(dict.fromkeys(lines))
    wrong = re.fullmatch(
        r"Parser key \"(.+?)\": Expected a (<class '(\w+)'>|typing\.Literal\[(.*)\])\. Got value: (.*)", short
    )
    if wrong:
        option, _, kind, choices, value = wrong.groups()
        return f"{option} is {value}, but must be {f'of type {kind}' if kind else f'one of {choices}'}."
    return short
