"""LightningCLI's parser with shorter errors, and a glance at arguments before it runs."""

import re
import sys
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser


class Parser(LightningArgumentParser):
    """Prints one paragraph for a mistake instead of jsonargparse's nested report."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        print(f"error: {shorten(message)}", file=sys.stderr)
        raise SystemExit(2)


def shorten(message: str) -> str:
    """The parts of jsonargparse's message that tell a person what to mend."""
    text = str(message)
    name = re.search(r"(?:Parser key|argument) [\"']?([\w.+-]+)[\"']?", text)
    unknown_class = re.search(
        r"Expected a dot import path string: ([\w.]+)|No module named '([\w.]+)'|class_path='([\w.]+)'", text
    )
    if unknown_class and ("Expected a dot import" in text or "No module named" in text or "valid subclass" in text):
        given = next(group for group in unknown_class.groups() if group)
        where = f" for {name.group(1)}" if name else ""
        return (
            f"There is no class {given!r}{where}: give the name of one, such as ImageFolder, SplitMask, RandomProjection, "
            "KMeans or UniformMasking, or a full import path (package.module.Class)."
        )
    lines = [line.strip(" -") for line in text.splitlines() if line.strip(" -")]
    return " ".join(dict.fromkeys(lines))
