"""Commands as text that can be copied into a shell."""

import shlex
import shutil
import sys
from collections.abc import Sequence

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
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() and sys.stderr.isatty() else sys.maxsize
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
