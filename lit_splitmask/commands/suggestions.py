"""What a misspelt class, option or value was probably meant to be. Heavy parts are imported when there is an error to explain."""

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module

from lightning import Callback, LightningDataModule

PACKAGES = {
    "objective": "objectives",
    "auxiliary": "objectives",
    "tokenizer": "tokenizers",
    "masking": "masking",
    "data": "datamodules",
    "augment": "augment",
    "model": "modules",
    "callbacks": "callbacks",
}
"""The package whose classes a setting takes, by the last part of the setting's name."""

_BASES = {"Codebook", "Objective", "Tokenizer", "WordStatistics"}
"""Classes that are exported for subclasses and results."""

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
    "list[float]": "a list of numbers",
    "list[int]": "a list of whole numbers",
    "list[str]": "a list of strings",
    "list": "a list",
    "dict": "settings by name",
}


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The name that is most like a given one, as the beginning of a sentence's part; empty if none is."""
    close = get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}? " if close else ""


def unknown_class(given: str, setting: str | None) -> str:
    """The message for the name of a class that does not exist.

    Args:
        given: The name.
        setting: The setting that it is given for, such as ``model.objective``; None if unknown.
    """
    last = (setting or "").rpartition(".")[2]
    where = f" for {setting}" if setting else ""
    if parts := _parts_of(last):
        examples = ", ".join(f"--data.{last}.{part}" for part in parts)
        return f"data.{last} is {given}, but it is set by its parts: {examples}."
    names = public_classes([PACKAGES[last]] if last in PACKAGES else set(PACKAGES.values()))
    listed = f"give one of {', '.join(names)}" if last in PACKAGES else "give the name of a class"
    return (
        f"There is no class {given!r}{where}: {did_you_mean(given.rpartition('.')[2], names)}{listed}, or a full import path "
        "(package.module.Class)."
    ).replace("? give", "? Give")


def unknown_setting(given: str) -> str:
    """The message for a setting that no class has: its name is the last part of an option, or a key in a file."""
    hint = did_you_mean(given, _settings_of_classes())
    return f"There is no setting {given!r}: {hint}--help_all lists all options.".replace("? --", "? The option --")


def unknown_options(given: Sequence[str], known: Iterable[str]) -> str:
    """The message for options that a parser does not have.

    Args:
        given: The options as given, such as ``--model.optim.lrr=1``.
        known: The names of the parser's options.
    """
    name = given[0].partition("=")[0]
    hint = did_you_mean(name, known)
    if not hint and (last := name.rpartition(".")[2].lstrip("-")) and "." in name:
        close = get_close_matches(last, _settings_of_classes(), n=1, cutoff=0.6)
        hint = (
            f"did you mean --{name.lstrip('-').rpartition('.')[0]}.{close[0]}? " if close and close[0] != last else ""
        )
    others = f" (and {', '.join(given[1:])})" if len(given) > 1 else ""
    kind = "option" if name.startswith("-") else "argument"
    return f"There is no {kind} {name}{others}: {hint}--help lists the options.".replace("? --", "? The option --")


def wrong_value(setting: str, value: str, types: str) -> str:
    """The message for a value of none of the types that a setting takes.

    Args:
        setting: The setting.
        value: The value.
        types: The types, as Python writes them in a list.
    """
    found: list[str] = []
    pattern = r"typing\.Literal\[(.*?)\]|<class '([\w.]+)'>|((?:list|dict|tuple)\[[\w., ]+\])"
    for literal, cls, generic in re.findall(pattern, types):
        if literal:
            found += [choice.strip().strip("'\"") for choice in literal.split(",")]
        else:
            name = cls or generic
            found.append(_TYPES.get(name, f"a {name.rpartition('.')[2]}"))
    choices = list(dict.fromkeys(found))
    hint = did_you_mean(value, choices)
    listed = (
        ", ".join(choices[:-1]) + (" or " if len(choices) > 1 else "") + choices[-1] if choices else "of another type"
    )
    return f"{setting} is {value}, but must be {listed}." + (f" {hint[0].upper()}{hint[1:].strip()}" if hint else "")


def public_classes(packages: Iterable[str]) -> list[str]:
    """Names of the classes that packages of this project export and that settings name, sorted."""
    bases = {"datamodules": LightningDataModule, "callbacks": Callback}
    found = [
        pair for package in packages for pair in _classes([package]) if issubclass(pair[1], bases.get(package, object))
    ]
    return sorted(name for name, cls in found if not (inspect.isabstract(cls) or name in _BASES))


def _classes(packages: Iterable[str]) -> Iterable[tuple[str, type]]:
    for package in packages:
        module = import_module(f"lit_splitmask.{package}")
        for name in getattr(module, "__all__", dir(module)):
            found = getattr(module, name)
            if inspect.isclass(found) and found.__module__.startswith("lit_splitmask"):
                yield name, found


def _settings_of_classes() -> set[str]:
    """Names of the arguments of all public classes, and of the parts of a budget and of the splits."""
    names = {part for last in ("budget", "splits") for part in _parts_of(last)}
    for _, cls in _classes(set(PACKAGES.values())):
        names |= inspect.signature(cls).parameters.keys() - {"args", "kwargs", "settings", "self"}
    return names


def _parts_of(setting: str) -> list[str]:
    """The parts of a setting whose class the user does not choose."""
    if setting == "budget":
        from lit_splitmask.loading.budget import Budget

        return [field.name for field in fields(Budget)]
    if setting == "splits":
        from lit_splitmask.images.index import SplitOptions

        return [field.name for field in fields(SplitOptions)]
    return []
