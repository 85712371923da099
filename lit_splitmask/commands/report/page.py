"""The page: its parts, and their HTML. Everything is escaped, and nothing is loaded from elsewhere."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from lit_splitmask import __version__
from lit_splitmask.files import is_file, read_bytes

MOST_BYTES = 2**24
"""Largest size of a picture; larger ones are named, but not shown."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: Titles of the columns.
        rows: Texts; the first of a row names it.
        note: A sentence below.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        caption: What it shows.
        source: The PNG as a data URI.
        width: In pixels.
        height: In pixels.
    """

    caption: str
    source: str
    width: int
    height: int


@dataclass
class Section:
    """A part of the page with a heading.

    Attributes:
        title: The heading.
        verdict: A sentence that stands out.
        texts: Paragraphs.
        tables: Tables.
        pictures: Pictures.
        commands: What each command does, and the command.
        details: Long texts by title, folded up.
    """

    title: str
    verdict: str = ""
    texts: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)

    def show(self, pictures: Iterable[tuple[Path, str]]) -> None:
        """Adds the pictures that exist, given as path and caption; names those that cannot be shown."""
        for path, caption in pictures:
            if not is_file(path):
                continue
            try:
                self.pictures.append(embed(read_bytes(path), caption))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                self.texts.append(f"{path} is not shown: {error}.")


def embed(png: bytes, caption: str) -> Picture:
    """A picture embedded in the page.

    Raises:
        ValueError: It is too large, or not a PNG.
        OSError: It is damaged.
    """
    if len(png) > MOST_BYTES:
        raise ValueError(f"it has {len(png):,} bytes, and a page embeds at most {MOST_BYTES:,}")
    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        picture.load()
        return Picture(caption, "data:image/png;base64," + base64.b64encode(png).decode(), *picture.size)


def render(title: str, subtitle: str, sections: Sequence[Section]) -> bytes:
    """The page as UTF-8.

    Args:
        title: The heading of the page.
        subtitle: A sentence below it.
        sections: Its parts.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files(__package__) / "page.html").read_text(encoding="utf-8"))
    text = template.render(title=title, subtitle=subtitle, sections=sections, version=__version__)
    return text.encode("utf-8", "replace")  # file names may hold bytes that are not text
