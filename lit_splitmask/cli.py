"""The command ``lit-splitmask``. Light: torch and Lightning are imported only once a command is known to need them."""

import sys
from collections.abc import Callable, Sequence

from lit_splitmask import __version__
from lit_splitmask.errors import UserError

USAGE = """\
usage: lit-splitmask COMMAND [options]      (lit-splitmask COMMAND --help lists a command's options)

Pre-train a Vision Transformer on your own images, fine-tune it, and see whether it was worth it.

  pretrain   learn a backbone from images alone:        lit-splitmask pretrain --data.root DIR
  finetune   train a classifier, from it or scratch:    lit-splitmask finetune --weights W --data.root DIR
  compare    was pre-training worth it? seeds, table:   lit-splitmask compare --data.root DIR
  recipes    list the settings that come along

  fit | validate | test | predict
             LightningCLI with any module and datamodule: lit-splitmask fit --model Pretrain --data ImageFolder …

Own folders are DIR/train/CLASS/*.jpg (and val/, test/), DIR/CLASS/*.jpg, or DIR/**/*.jpg without labels.
"""

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 for a :class:`UserError`, 2 for wrong options, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    try:
        return _command(arguments[0])(arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 2


def _command(name: str) -> Callable[[list[str]], int]:
    """The function that runs a command, imported now."""
    if name == "pretrain":
        from lit_splitmask.commands.training import pretrain

        return pretrain
    if name == "finetune":
        from lit_splitmask.commands.training import finetune

        return finetune
    if name == "compare":
        from lit_splitmask.commands.compare import compare

        return compare
    if name == "recipes":
        from lit_splitmask.commands.recipes import list_recipes

        return list_recipes
    if name in LIGHTNING_COMMANDS:
        from lit_splitmask.commands.training import lightning

        return lambda arguments: lightning([name, *arguments])
    known = "pretrain, finetune, compare, recipes, fit, validate, test, predict"
    print(f"error: there is no command {name!r}; the commands are {known}.", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main())
