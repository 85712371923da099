"""What the cells of a label column mean: one class each, or several labels. Pure functions."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_BETWEEN_LABELS = ("|", ";", ",", " ")
_LIST = re.compile(r"[\[({].*[\])}]", re.DOTALL)
_NO_LABEL = {"nan", "null", "n/a", "na", "<na>", "?", "-1"}
"""Texts that programs write where there is no label; each would be read as a class."""


@dataclass(frozen=True)
class SeveralLabels:
    """Evidence that cells hold several labels each.

    Attributes:
        example: A cell with several labels.
        parts: Its labels.
        certain: Whether the cells cannot mean one class each; if not, both readings are about equally likely.
    """

    example: str
    parts: list[str]
    certain: bool


def several_labels(cells: Iterable[str]) -> SeveralLabels | None:
    """The evidence that cells hold several labels each; None if each names one class.

    A label may contain a separator ("golden retriever"). Cells hold several labels if splitting them gives a small vocabulary
    that other cells use too ("scab", "scab frog_eye").
    """
    names = sorted({cell for cell in cells if cell})
    if names and all(_LIST.fullmatch(name) for name in names):
        example = max(names, key=lambda name: name.count(","))
        return SeveralLabels(example, _split(example[1:-1], ","), certain=True)
    for separator in _BETWEEN_LABELS:
        parts = {name: _split(name, separator) for name in names}
        compounds = {name: found for name, found in parts.items() if len(found) > 1}
        if not compounds:
            continue
        certain = _is_certain(parts, compounds, separator)
        if certain or _is_likely(parts, compounds, separator):
            example = next(iter(compounds))
            return SeveralLabels(example, compounds[example], certain)
    return None


def separator_of(cells: Iterable[str]) -> str | None:
    """What separates the labels of cells that may hold several; None if each holds one.

    A bar, a semicolon or a comma in any cell does; a space only where :func:`several_labels` finds that it does.
    """
    names = sorted({cell for cell in cells if cell})
    if names and all(_LIST.fullmatch(name) for name in names):
        return ","
    for separator in _BETWEEN_LABELS[:-1]:
        if any(separator in name for name in names):
            return separator
    return " " if several_labels(names) is not None else None


def labels_in(cell: str, separator: str | None) -> list[str]:
    """The labels of a cell, without the brackets and quotes of a list."""
    if separator is None:
        return [cell]
    inner = cell[1:-1] if _LIST.fullmatch(cell) else cell
    return [part.strip("'\" ") for part in _split(inner, separator)]


def _split(name: str, separator: str) -> list[str]:
    return [part.strip() for part in name.split(separator) if part.strip()]


def _is_certain(parts: dict[str, list[str]], compounds: dict[str, list[str]], separator: str) -> bool:
    single = parts.keys() - compounds.keys()
    joined = [part for found in compounds.values() for part in found]
    if single.issuperset(joined) or all(part.isdecimal() for part in joined):
        return True
    if len({frozenset(found) for found in compounds.values()}) < len(compounds):  # "a b" and "b a"
        return True
    recurring = _recurring(parts)
    if separator in "|;":
        return not recurring.isdisjoint(joined)
    return separator == " " and any("_" in part for part in joined) and not recurring.isdisjoint(joined)


def _recurring(parts: dict[str, list[str]]) -> set[str]:
    """The parts of more than one cell."""
    count = Counter(part for found in parts.values() for part in set(found))
    return {part for part, number in count.items() if number > 1}


def _is_likely(parts: dict[str, list[str]], compounds: dict[str, list[str]], separator: str) -> bool:
    """Whether the cells share the words of a vocabulary that is no larger than their own number.

    The last word of a phrase is often a class too ("retriever", "golden retriever"), which is no evidence.
    """
    is_small = len({part for found in parts.values() for part in found}) <= len(parts)
    if separator == " ":
        return is_small and not _are_phrases(compounds) and _share_words(parts, compounds)
    if is_small and not _recurring(parts).isdisjoint(part for found in compounds.values() for part in found):
        return True
    first = {found[0] for found in compounds.values()}
    last = {found[-1] for found in compounds.values()}
    return not first.isdisjoint(last)  # "cat,dog" and "dog,bird", unlike "Paris, France" and "Lyon, France"


def _are_phrases(compounds: dict[str, list[str]]) -> bool:
    """Whether most cells begin with a capital letter and have no others, as "Quercus robur" does."""
    capital = sum(found[0][0].isupper() and any(part.islower() for part in found[1:]) for found in compounds.values())
    return 2 * capital > len(compounds)


def _share_words(parts: dict[str, list[str]], compounds: dict[str, list[str]]) -> bool:
    """Whether several cells contain a class before their last word, or a cell of two words is contained in a longer one."""
    single = parts.keys() - compounds.keys()
    sets = {frozenset(found) for found in compounds.values()}
    before_the_last = sum(any(part in single for part in found[:-1]) for found in compounds.values())
    return before_the_last > 1 or any(len(pair) == 2 and pair < found for pair in sets for found in sets)


def shared_words(names: Iterable[str]) -> tuple[str, str] | None:
    """A class whose name contains that of another as a word, and that other; None unless half of the phrases do."""
    known = set(names)
    phrases = sorted(name for name in known if " " in name)
    found = [(name, part) for name in phrases for part in name.split() if part in known]
    return found[0] if found and 2 * len({name for name, _ in found}) >= len(phrases) else None


def near_equal(names: Iterable[str]) -> list[list[str]]:
    """Groups of class names that differ in case, spaces, hyphens or underscores only; or of numbers, such as 1 and 1.0."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        plain = re.sub(r"[\s_-]+", "", name.casefold())
        groups.setdefault(re.sub(r"^(\d+)\.0+$", r"\1", plain), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def unknown_markers(names: Iterable[str]) -> list[str]:
    """Class names that programs write where there is no label."""
    return sorted(name for name in set(names) if name.casefold() in _NO_LABEL)
