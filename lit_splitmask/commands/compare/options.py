"""The options of ``lit-splitmask compare``."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from lit_splitmask.commands.parser import OptionParser, numbers, words
from lit_splitmask.comparison import LOOKS, looks_up_to
from lit_splitmask.errors import UserError
from lit_splitmask.images.layout import LayoutName

LIST_OPTIONS = ("--data", "--data.manifest", "--data.splits.labels")
"""Options of other commands that name a list."""


@dataclass(frozen=True)
class Options:
    """Options of ``compare``.

    Attributes:
        root: The folder of images.
        layout: What the folder is, as for ``pretrain``.
        out: Folder of all results; None for ``runs/compare-<folder>``. Trainings finished there are not run again.
        recipe: A comparison recipe by name or path; None for one that fits the images.
        seeds: Number of seeds, each with its own pre-training; None for as many as are needed.
        max_seeds: Most seeds, if as many are trained as are needed.
        label_shares: Shares of the training labels to fine-tune with.
        weights: A file of other pre-trained weights, such as ImageNet's: one more arm.
        methods: Other methods of pre-training, one more arm each, such as ``mae``, or ``mae@50`` for 50 passes.
        equal_time: Whether to also train from scratch for equal total time, that of pre-training and fine-tuning together.
        set_pretrain: Options of ``pretrain`` that override the recipe, such as ``--data.budget.passes=50``.
        set_finetune: Options of ``finetune`` that override the recipe.
    """

    root: str
    layout: str = "auto"
    out: str | None = None
    recipe: str | None = None
    seeds: int | None = 3
    max_seeds: int = 10
    label_shares: tuple[float, ...] = (1.0,)
    weights: str | None = None
    methods: tuple[str, ...] = ()
    equal_time: bool = True
    set_pretrain: tuple[str, ...] = ()
    set_finetune: tuple[str, ...] = ()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Options":
        """Reads the options.

        Raises:
            UserError: The folder is not given, or a value is out of range.
            SystemExit: An option is unknown, or a value is not of its type.
        """
        parser = OptionParser(prog="lit-splitmask compare", allow_abbrev=False)
        parser.add_argument("--data.root", dest="root", default="")
        parser.add_argument("--layout", "--data.splits.layout", choices=get_args(LayoutName), default=cls.layout)
        parser.add_argument("--out")
        parser.add_argument("--recipe")
        for name in LIST_OPTIONS:
            parser.add_argument(name, dest="listed", help=argparse.SUPPRESS)
        parser.add_argument("--seeds", type=_seeds, default=cls.seeds)
        parser.add_argument("--max_seeds", type=int, default=cls.max_seeds)
        parser.add_argument("--label_shares", type=numbers, default=cls.label_shares)
        parser.add_argument("--weights")
        parser.add_argument("--methods", type=words, default=cls.methods)
        parser.add_argument("--equal_time", type=_boolean, default=cls.equal_time)
        parser.add_argument("--set_pretrain", type=words, default=cls.set_pretrain)
        parser.add_argument("--set_finetune", type=words, default=cls.set_finetune)
        given = vars(parser.parse_args(list(arguments)))
        if given.pop("listed") is not None:
            raise UserError(
                "compare reads a folder in which each class is a folder, not a list, and images with several labels have no "
                "accuracy to compare, since it counts each image as right or wrong. Give --data.root DIR. With a list, run "
                "finetune, and finetune --weights after pretrain, and compare their test scores over seeds."
            )
        options = cls(**given)
        if not options.root:
            raise UserError("compare needs the folder of images: --data.root DIR.")
        if options.seeds is not None and options.seeds < 1:
            raise UserError(f"--seeds is {options.seeds}: give at least 1, and at least 3 for a meaningful interval.")
        if options.seeds is None and not options.equal_time:
            raise UserError(
                "--seeds auto adds seeds until a way differs from training from scratch for equal total time, which --equal_time "
                "false turns off: leave out --equal_time false, or give a number of seeds."
            )
        if options.max_seeds < LOOKS[0]:
            raise UserError(
                f"--max_seeds is {options.max_seeds}, but --seeds auto looks at {LOOKS[0]} seeds first: give at least {LOOKS[0]}."
            )
        wrong = [share for share in options.label_shares if not 0 < share <= 1]
        if wrong or not options.label_shares:
            problem = f"holds {wrong[0]:g}" if wrong else "is empty"
            raise UserError(f"--label_shares {problem}: give shares above 0 and up to 1.")
        return options

    @property
    def looks(self) -> list[int]:
        """The numbers of seeds after which the intervals are looked at."""
        return looks_up_to(self.max_seeds) if self.seeds is None else [self.seeds]


def _seeds(text: str) -> int | None:
    """A number, or None for ``auto``."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
