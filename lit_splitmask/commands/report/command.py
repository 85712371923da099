"""The command ``report``: finds the folder, and writes its page."""

import argparse
import csv
from pathlib import Path

from lit_splitmask.commands.parser import OptionParser
from lit_splitmask.commands.report.comparison import comparison_sections
from lit_splitmask.commands.report.page import Section, render
from lit_splitmask.commands.report.probe import probe_sections
from lit_splitmask.commands.report.run import run_sections
from lit_splitmask.commands.request import Request
from lit_splitmask.errors import UserError
from lit_splitmask.files import as_typed, write_atomically
from lit_splitmask.shell import say

KINDS = {
    "comparison.json": ("A comparison of ways of training.", comparison_sections),
    "config.yaml": ("A training.", run_sections),
    "probe.json": ("A probe of frozen features.", probe_sections),
}
"""The file by which a folder is recognised: what it is, and the sections of its page."""


def report(request: Request) -> int:
    """Writes the page of a run, a comparison or a probe, whole or not at all.

    Raises:
        UserError: There is no such folder, it holds nothing to report, its records cannot be read, or the page cannot be written.
    """
    parser = OptionParser(prog="lit-splitmask report", allow_abbrev=False)
    parser.add_argument("run")
    parser.add_argument("--out")
    options: argparse.Namespace = parser.parse_args(request.settings())
    folder = find_run(options.run)
    out = Path(options.out or folder / "report.html")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: give the file to write, such as {out / 'report.html'}.")
    write_atomically(out, page_of(folder))
    say(f"Wrote {out}. Any browser opens it; it needs no network and no other file.")
    return 0


def find_run(given: str) -> Path:
    """The folder of a run: the path, or the name of a run in ``runs``.

    Raises:
        UserError: There is no such folder.
    """
    path = Path(given).expanduser()
    found = next((folder for folder in (path, Path("runs") / given) if folder.is_dir()), None)
    if found is not None:
        return found
    if path.exists():
        raise UserError(f"{given} is a file: give the folder of a run, such as {path.parent}.")
    there = sorted(entry.name for entry in Path("runs").iterdir()) if Path("runs").is_dir() else []
    known = f" In runs there are {', '.join(there[:10])}{' and more' if len(there) > 10 else ''}." if there else ""
    raise UserError(
        f"There is no folder {given} (from {Path.cwd()}), nor runs/{given}: give the folder of a run.{known}"
    )


def page_of(folder: Path) -> bytes:
    """The page of a folder, as UTF-8.

    Raises:
        UserError: The folder holds nothing to report, or its records cannot be read.
    """
    name = as_typed(folder).name
    kind = next((kind for file, kind in KINDS.items() if (folder / file).is_file()), None)
    if kind is None:
        raise UserError(_nothing_in(folder))
    what, sections_of = kind
    try:
        sections: list[Section] = sections_of(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, StopIteration, csv.Error) as error:
        raise UserError(
            f"The records in {folder} cannot be read ({error!r}): a file in it was changed or is damaged. Restore it, or repeat "
            "the run."
        ) from error
    return render(name, f"{what} {folder}", sections)


def _nothing_in(folder: Path) -> str:
    """Why a folder has no page, and what to give instead."""
    if any(folder.glob("*/result.json")) or any(folder.glob("labels*/*/result.json")):
        return f"{folder} holds an unfinished comparison: repeat its command, which runs what is missing."
    if (folder / "result.json").is_file():
        return f"{folder} holds one training of a comparison: give the folder of the comparison that contains it."
    inside = sorted(entry.name for entry in folder.iterdir() if any((entry / file).is_file() for file in KINDS))
    hint = f" It holds {', '.join(inside[:10])}: give one of them, as {folder / inside[0]}." if inside else ""
    return f"{folder} is not the folder of a run, a comparison or a probe: it has no {', '.join(KINDS)}.{hint}" + (
        "" if hint else " Give a folder that pretrain, finetune, compare or probe has written."
    )
