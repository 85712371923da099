"""The options of ``lit-splitmask reproduce``."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lit_splitmask.commands.parser import OptionParser, words
from lit_splitmask.commands.reproduce.stages import Setting
from lit_splitmask.datamodules.paper_rows import PaperTable, Row, paper_tables
from lit_splitmask.errors import UserError
from lit_splitmask.files import local_folder


@dataclass(frozen=True)
class Options:
    """Options of ``reproduce``.

    Attributes:
        table: Name of a table or figure; None for all.
        row: Name of one of its rows; None to list rows.
        root: The images that the row is evaluated on; None to list rows.
        pretrain_root: The images of its pre-training, if they are others.
        tokenizer: The file of DALL-E's encoder.
        weights: Weights to start from instead of those of the row's pre-training.
        out: Folder of all trainings and of ``results.json``; None for ``runs/reproduce``, with the scale if there is one.
        scale: Multiple of the length of each training.
        seeds: Seeds, each with trainings of its own.
        set_pretrain: More options of ``pretrain``.
        set_finetune: More options of ``finetune``.
        set_probe: More options of ``probe``.
        json: Whether to print JSON instead of tables.
        hours: Whether to time steps, and list hours on this machine.
        dry_run: Whether to print the commands of the row, and run nothing.
    """

    table: str | None = None
    row: str | None = None
    root: str | None = None
    pretrain_root: str | None = None
    tokenizer: str | None = None
    weights: str | None = None
    out: str | None = None
    scale: float = 1.0
    seeds: tuple[int, ...] = (0,)
    set_pretrain: tuple[str, ...] = ()
    set_finetune: tuple[str, ...] = ()
    set_probe: tuple[str, ...] = ()
    json: bool = False
    hours: bool = False
    dry_run: bool = False

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Options":
        """Reads the options.

        Raises:
            UserError: A value is out of range, options do not go together, or a folder of images is an address.
            SystemExit: An option is unknown, or a value is not of its type.
        """
        parser = OptionParser(prog="lit-splitmask reproduce", allow_abbrev=False)
        parser.add_argument("table", nargs="?")
        parser.add_argument("--row")
        parser.add_argument("--data.root", dest="root")
        for name in ("pretrain_root", "tokenizer", "weights", "out"):
            parser.add_argument(f"--{name}")
        parser.add_argument("--scale", type=float, default=cls.scale)
        parser.add_argument("--seeds", type=_seeds, default=cls.seeds)
        for name in ("set_pretrain", "set_finetune", "set_probe"):
            parser.add_argument(f"--{name}", type=words, default=())
        for name in ("json", "hours", "dry_run"):
            parser.add_argument(f"--{name}", action="store_true")
        options = cls(**vars(parser.parse_args(list(arguments))))
        if not 0 < options.scale <= 1:
            raise UserError(
                f"--scale is {options.scale:g}: give a share of the paper's length, above 0 and up to 1, such as 0.01."
            )
        for root in filter(None, (options.root, options.pretrain_root)):
            local_folder(root)
        if options.row is not None and options.table is None:
            raise UserError(
                f"--row {options.row} needs its table: give the table first, as in reproduce table6 --row …"
            )
        if options.row is None and (options.root is not None or options.dry_run):
            given = "--dry_run" if options.dry_run else "--data.root"
            raise UserError(
                f"{given} is for one row, and none is given: add the table and --row ROW (lit-splitmask reproduce lists them)."
            )
        return options

    def tables(self) -> list[PaperTable]:
        """The tables to list.

        Raises:
            UserError: There is no such table.
        """
        known = paper_tables()
        if self.table is None:
            return list(known.values())
        return [known[_closest(self.table.lower().replace(" ", ""), list(known), "table", "", "Tables")]]

    def chosen(self) -> Row:
        """The row to run.

        Raises:
            UserError: There is no such table or row.
        """
        (table,) = self.tables()
        assert self.row is not None
        return table.rows[_closest(self.row, list(table.rows), "row", f" in {table.name}", "Rows")]

    def setting(self) -> Setting:
        """Where the row's files are, and how it is run. What is not given has a placeholder."""
        default = Setting()
        return Setting(
            out=self.folder,
            root=_absolute(self.root) or default.root,
            pretrain_root=_absolute(self.pretrain_root) or default.pretrain_root,
            tokenizer=_absolute(self.tokenizer) or default.tokenizer,
            weights=_absolute(self.weights),
            scale=self.scale,
            set_pretrain=self.set_pretrain,
            set_finetune=self.set_finetune,
            set_probe=self.set_probe,
        )

    @property
    def folder(self) -> str:
        """Folder of all trainings."""
        scaled = "" if self.scale == 1 else f"-scale{self.scale:g}"
        return self.out or f"runs/reproduce{scaled}"


def _absolute(path: str | None) -> str | None:
    """A path that stays the same however it is written."""
    return None if path is None else str(Path(path).expanduser().resolve())


def _closest(name: str, known: list[str], kind: str, where: str, title: str) -> str:
    """A name that exists.

    Raises:
        UserError: It does not; the message has similar ones.
    """
    if name in known:
        return name
    close = get_close_matches(name, known, n=4, cutoff=0.4)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"{title}: {', '.join(known[:12])}."
    raise UserError(f"There is no {kind} {name!r}{where}. {hint} lit-splitmask reproduce lists all.")


def _seeds(text: str) -> tuple[int, ...]:
    """Different whole numbers, at least 0."""
    try:
        seeds = tuple(int(word) for word in words(text))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different seeds, at least 0, such as 0,1,2")
    return seeds
