"""Text for a terminal: commands that can be copied into a shell, and sentences that are not broken within a word."""

import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

INDENT = "  "


def copyable(words: Sequence[str], width: int | None = None) -> str:
    """A command, indented; where it is longer than the terminal, on several lines that a shell reads as one.

    Args:
        words: The words of the command.
        width: Characters of a line; None for those of the terminal, or any number in output that is not a terminal.

    Example:
        >>> print(copyable(["lit-splitmask", "pretrain", "--data.root", "my photos", "--name", "first"], width=48))
          lit-splitmask pretrain \\
            --data.root 'my photos' --name first
    """
    width = width or _columns()
    line = INDENT + shlex.join(words)
    if len(line) <= width:
        return line
    parts: list[str] = []
    for word in words:
        if parts and not word.startswith("--") and (len(parts) > 1 or word is words[1]):
            parts[-1] += f" {shlex.quote(word)}"  # a value stays with its option
        else:
            parts.append(shlex.quote(word))
    lines = [INDENT + parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 3 > width:
            lines.append(2 * INDENT + part)
        else:
            lines[-1] += f" {part}"
    return " \\\n".join(lines)


def wrapped(text: str, width: int | None = None) -> str:
    """Text whose lines are broken between words where they are longer than the terminal; indented lines, as commands are, stay.

    Args:
        text: The text.
        width: As for :func:`copyable`.

    Example:
        >>> print(wrapped("Wrote backbone.safetensors. Next:\\n  lit-splitmask report runs/first", width=28))
        Wrote backbone.safetensors.
        Next:
          lit-splitmask report runs/first
    """
    width = width or _columns()
    lines = [
        line
        if line.startswith(INDENT) or len(line) <= width
        else textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def say(text: str, file: TextIO | None = None) -> None:
    """Prints text for a person, at once.

    Args:
        text: The text.
        file: Where to; None for the standard output.
    """
    print(wrapped(text), file=file, flush=True)


def _columns() -> int:
    """Characters of a line of the terminal; any number in output that is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() and sys.stderr.isatty() else sys.maxsize
