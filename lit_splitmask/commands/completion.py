"""``lit-splitmask completion``: commands and options, completed by a shell. What can be completed is read off the help texts.

jsonargparse's own completion would build the parsers of all settings, hence import torch and Lightning, each time that a key is
pressed (argcomplete), and knows nothing of the commands that have parsers of their own (shtab).
"""

import argparse
import re

from lit_splitmask.commands import recipes
from lit_splitmask.commands.help import LIGHTNING_COMMANDS, documented, help_of, run_options
from lit_splitmask.commands.request import FLAGS, Request
from lit_splitmask.errors import UserError

_LINE = re.compile(r"^  (--.*?)(?:   *[^ -].*)?$", flags=re.MULTILINE)  # options, and behind two spaces what they mean
_OPTION = re.compile(r"(--[\w.|]+\+?)(?: ('[^']*'|[^\s,]+))?")


def completion(request: Request) -> int:
    """Prints the script that makes a shell complete the command line.

    Raises:
        UserError: The shell is unknown, or shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise UserError("completion needs the package shtab: pip install 'lit-splitmask[completion]'.") from None
    shell = request.options[0].value if request.options else None
    if len(request.options) != 1 or shell not in shtab.SUPPORTED_SHELLS:
        given = " ".join(str(option) for option in request.options) or "no shell"
        raise UserError(f"completion takes one shell, {', '.join(shtab.SUPPORTED_SHELLS)}, but got {given}.")
    print(shtab.complete(parser(), shell))
    return 0


def parser() -> argparse.ArgumentParser:
    """A parser of the commands and the options that their help texts name; it is completed, never used to parse."""
    whole = argparse.ArgumentParser("lit-splitmask")
    whole.add_argument("--version", action="store_true")
    commands = whole.add_subparsers()
    for name in (*documented(), *LIGHTNING_COMMANDS):
        text = help_of(name) or f"\n\nLightningCLI.\n\n{run_options()}"
        about = " ".join(re.split(r"\n\n|\.\s", text)[1].split())  # its first sentence
        _add_options(commands.add_parser(name, help=about), text)
    return whole


def _add_options(command: argparse.ArgumentParser, text: str) -> None:
    """Adds the options that a help text names."""
    values: dict[str, list[str]] = {}
    for line in _LINE.findall(text):
        for names, value in _OPTION.findall(line):
            first, *others = names.split("|")
            stem = first.rpartition(".")[0]
            for name in (first, *(f"{stem}.{other}" for other in others)):
                values.setdefault(name, []).extend(filter(None, value.split("|")))
    for name, forms in values.items():
        if name in FLAGS or name == "--resume":
            command.add_argument(name, action="store_true")
        elif not re.search("[A-Z]", name):  # --trainer.OPTION stands for many
            words = [form for form in forms if re.fullmatch(r"[\w-]+", form) and not form.isupper()]
            choices = recipes.available() if name == "--recipe" else words
            _complete_files(command.add_argument(name, choices=choices or None), forms)


def _complete_files(option: argparse.Action, forms: list[str]) -> None:
    """Completes an option by files or folders, if its value is one."""
    import shtab

    if option.choices is None and any(form.startswith("FILE") for form in forms):
        option.complete = shtab.FILE  # type: ignore[attr-defined]
    elif option.choices is None and "DIR" in forms:
        option.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
