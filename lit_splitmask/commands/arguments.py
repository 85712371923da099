"""A glance at a command line before its parser is built; light."""

from collections.abc import Sequence


def value_of(arguments: Sequence[str], option: str) -> str | None:
    """The last value of ``--option VALUE`` or ``--option=VALUE``; ``None`` where it does not occur."""
    value = None
    for position, argument in enumerate(arguments):
        if argument == option:
            value = arguments[position + 1] if position + 1 < len(arguments) else ""
        elif argument.startswith(f"{option}="):
            value = argument.removeprefix(f"{option}=")
    return value
