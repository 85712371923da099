"""The command ``lit-splitmask``. Light: torch and Lightning are imported only by the commands that need them."""

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from lit_splitmask import __version__
from lit_splitmask.commands.help import USAGE, help_of
from lit_splitmask.commands.processes import (
    Terminated,
    check_alone,
    end_at_sigterm,
    error_prefix,
    explain,
    leave_the_others,
    pass_on_sigterm,
    this_rank,
)
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.terminal import outlive_the_terminal, use_utf8
from lit_splitmask.errors import UserError
from lit_splitmask.files import check_temporary_folder, is_disk_error, is_remote, local_folder
from lit_splitmask.shell import copyable, say

COMMANDS = {
    "plan": "plan.command:plan",
    "pretrain": "pretrain:pretrain",
    "finetune": "finetune:finetune",
    "compare": "compare.command:compare",
    "probe": "probe:probe",
    "embed": "embed:embed",
    "export": "export.command:export",
    "report": "report.command:report",
    "shard": "shard:shard",
    "reproduce": "reproduce.command:reproduce",
    "recipes": "recipes:list_recipes",
    "convert-dalle": "convert_dalle:convert_dalle",
    "completion": "completion:completion",
    "fit": "lightning_commands:lightning",
    "validate": "lightning_commands:lightning",
    "test": "lightning_commands:lightning",
    "predict": "lightning_commands:lightning",
}
"""Commands by name: the module in ``commands``, and its function from a :class:`Request` to the exit code."""


DISK_ADVICE = (
    "Free some space or give folders that you may write to, and run the command again; continue a run that has started with "
    "--name NAME --resume."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The command and its arguments; None for those of the process.

    Returns:
        The exit code: 0, 1 for a :class:`UserError` or a disk that fails, 2 for an unknown command or wrong options, 130 for
        Ctrl-C, 143 for SIGTERM.
    """
    if argv is not None:
        return _run(list(argv))
    use_utf8()
    outlive_the_terminal()
    end_at_sigterm()
    code = _run(sys.argv[1:])
    if code:
        leave_the_others(code)
    return code


def _run(arguments: list[str]) -> int:
    """Runs one command; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        close = get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]}? There are" if close else "give one of"
        say(f"error: There is no command {command!r}: {hint} {', '.join(COMMANDS)}.", sys.stderr)
        return 2
    help_text = help_of(command) if any(a in ("-h", "--help") for a in rest) else None
    if help_text is not None:
        print(help_text, end="")
        return 0
    try:
        check_temporary_folder()
        check_alone(command)
        request = Request.read(command, rest)
        check_data(request)
        check_outputs(request)
        return _function(command)(request)
    except UserError as error:
        say(f"{error_prefix()}: {error}", sys.stderr)
        return 1
    except OSError as error:
        if not is_disk_error(error):
            raise
        place = f" ({error.filename})" if error.filename else ""
        say(f"{error_prefix()}: The disk failed: {error.strerror}{place}. {DISK_ADVICE}", sys.stderr)
        return 1
    except RuntimeError as error:
        if (explanation := explain(error)) is None:
            raise
        say(f"{error_prefix()}: {explanation}", sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        if this_rank() == 0:
            say(f"interrupted: {str(stop) or _to_repeat(arguments, before='checkpoint')}", sys.stderr)
        return 130
    except Terminated as stop:
        if pass_on_sigterm():
            say(f"stopped by SIGTERM (process {this_rank()}), so the first process stops as well.", sys.stderr)
        elif this_rank() == 0:
            say(f"stopped by SIGTERM: {stop.kept or _to_repeat(arguments)}", sys.stderr)
        return 143
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit(1)
            say(f"interrupted: {_to_repeat(arguments, before='checkpoint')}", sys.stderr)
            return 130
        if type(error).__name__ == "SIGTERMException":  # Lightning's, in a validation, test or prediction
            say("stopped by SIGTERM", sys.stderr)
            return 143
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        say(str(error.code), sys.stderr)
        return 2


def _to_repeat(arguments: Sequence[str], *, before: str = "step") -> str:
    """What to do after a command that was stopped; a training, before its first step or checkpoint."""
    kept = "it had not finished. To start again"
    if arguments[0] in ("compare", "reproduce"):
        kept = "what it had finished is kept. The same command continues"
    elif arguments[0] in ("pretrain", "finetune", "fit"):
        kept = f"before the first {before}, so nothing was saved. To start again"
    return f"{kept}:\n{copyable(['lit-splitmask', *arguments])}"


def check_data(request: Request) -> None:
    """Checks the folders of images, before the slow imports.

    Raises:
        UserError: One is an address that is not read, does not exist, or is a file.
    """
    root = request.root
    if request.datamodule == "Shards" or (root is not None and is_remote(root) and request.names_settings):
        return  # the settings may name Shards, which may be anywhere; other datamodules refuse an address themselves
    for place in filter(None, (root, request.manifest, *request.pool)):
        local_folder(place)
    if root is not None and not os.path.isdir(Path(root).expanduser()):
        kind = "is a file" if os.path.exists(Path(root).expanduser()) else "does not exist"
        raise UserError(f"The data folder {root} {kind} (from {Path.cwd()}). Give the folder that holds the images.")


def check_outputs(request: Request) -> None:
    """Checks that what a command writes goes to this machine: an address would become the name of a local folder.

    Raises:
        UserError: A folder to write to is an address.
    """
    for option in ("--runs_dir", "--out", "--data.index_dir"):
        place = request.value(option)
        if place is not None and is_remote(place):
            raise UserError(
                f"{option} {place} is an address, and files are written to folders of this machine: give a folder, and copy it "
                "when the command has ended."
            )


def _function(command: str) -> Callable[[Request], int]:
    """The function that runs a command, imported now."""
    module, _, name = COMMANDS[command].partition(":")
    function: Callable[[Request], int] = getattr(import_module(f"lit_splitmask.commands.{module}"), name)
    return function


if __name__ == "__main__":
    sys.exit(main())
