"""The commands on the pages, in the headers of the recipes, and in what a command prints."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "lit_splitmask" / "recipes").glob("*.yaml"))

PROGRAM = "lit-splitmask"
LAUNCHERS = ("torchrun", "srun")
"""Programs that start ours."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in any of these languages."""
    pattern = rf"^```(?:{'|'.join(languages)})\n(.*?)^```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def shell_lines(page: Path) -> list[list[str]]:
    """The words of each line of shell of a page: in its blocks, indented in its text, or a comment of a recipe."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".yaml":
        parts = [re.sub(r"^# ?", "", text.partition("\n\n")[0], flags=re.MULTILINE)]
    else:
        parts = blocks(page, "sh", "bash")
        text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = [part for part in (text if page.suffix == ".md" else parts.pop()).split("\n\n")]
    parts += ["\n".join(line for line in part.splitlines() if line.startswith("  ")) for part in indented]
    found = []
    for part in parts:
        for line in part.replace("\\\n", " ").splitlines():
            if PROGRAM in line or not line.startswith("  "):
                found.append(shlex.split(line, comments=True))
    return [words for words in found if words]


def ours(words: Sequence[str]) -> list[str] | None:
    """The arguments of our program in a line of shell, without what the shell takes; None if the line runs another program."""
    if words[0] not in (PROGRAM, *LAUNCHERS) or PROGRAM not in words:
        return None
    rest = list(words[words.index(PROGRAM) + 1 :])
    return rest[: rest.index(">")] if ">" in rest else rest


def command_lines(page: Path) -> list[list[str]]:
    """The arguments of each of our command lines of a page."""
    return [arguments for words in shell_lines(page) if (arguments := ours(words)) is not None]


def spans(page: Path) -> Iterator[str]:
    """The inline code of a page, each on one line."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
        yield " ".join(span.split())


def printed_commands(text: str) -> list[list[str]]:
    """The arguments of each of our commands that a command printed, on indented lines of its own."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(f"  {PROGRAM} ")]
    return [shlex.split(line)[1:] for line in lines]
