"""What mkdocs does beside its configuration (``mkdocs.yml``).

The pages of ``docs/`` are plain Markdown that reads as well without a site. So what only the site needs is made here: the README,
CONTRIBUTING and the changelog, which lie outside ``docs/``, become pages, and every public package gets a page of its API.
"""

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages outside ``docs/``, and their names on the site."""

PACKAGES = ("objectives", "modules", "datamodules", "callbacks", "models", "tokenizers", "augment")
"""Packages with a page of their own: what their ``__all__`` lists."""

FILES = ("masking", "losses", "views", "optim", "probing", "streamed_probing", "comparison", "checkpoints", "contract")
"""Modules that share the page "Single files"."""


class PlainMarkdown(griffe.Extension):
    """Docstrings as Griffe reads them.

    Sphinx's roles become code, ``Example:`` becomes ``Examples:``, and an entry for several parameters becomes one for each.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of a module, class, function or attribute."""
        if obj.docstring:
            text = re.sub(r":(?:class|func|data|meth|attr|mod):`~?([^`]+)`", r"`\1`", obj.docstring.value)
            text = re.sub(r"^(\s*)Example:$", r"\1Examples:", text, flags=re.MULTILINE)
            entry = re.compile(r"^( +)(\w+(?:, \w+)+):(.*\n?(?:\1 +.*\n?)*)", flags=re.MULTILINE)
            obj.docstring.value = entry.sub(_an_entry_for_each, text)


def _an_entry_for_each(shared: re.Match[str]) -> str:
    """The lines of an entry ``a, b: Text.``, once for each name."""
    indent, names, text = shared.groups()
    return "".join(f"{indent}{name}:{text.rstrip()}\n" for name in names.split(", "))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that do not lie in ``docs/``."""
    for name, page in OUTSIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, its_page in OUTSIDE.items():
            text = text.replace(f"]({other}", f"]({its_page}")
        files.append(File.generated(config, page, content=text))
    for package in PACKAGES:
        title = f"# lit_splitmask.{package}\n\n"
        files.append(File.generated(config, f"api/{package}.md", content=title + _members(package)))
    content = "# Single files\n\n" + "\n\n".join(f"::: lit_splitmask.{name}" for name in FILES)
    files.append(File.generated(config, "api/files.md", content=content))
    return files


def _members(package: str) -> str:
    """The directives of a package: one for each public name, in alphabetical order."""
    module = griffe.load(f"lit_splitmask.{package}", search_paths=[str(ROOT)])
    assert isinstance(module, griffe.Module)
    about = module.docstring.value if module.docstring else ""
    names = sorted(map(str, module.exports or ()), key=str.lower)
    return "\n\n".join([about, *(f"::: lit_splitmask.{package}.{name}" for name in names)])


def on_post_page(output: str, page: Page, **kwargs: Any) -> str:
    """Fails on a page that would ask another server for a script, a style, a font or a picture when it is read."""
    asked = re.search(r"""<(?:script|link|img|iframe|source)\b[^>]*\s(?:src|href)=["']?(?:https?:)?//[^>]*>""", output)
    if asked:
        raise PluginError(f"{page.file.src_uri} asks another server: {asked.group()}")
    return output


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Turns links to pages outside ``docs/`` into links on the site."""
    for name, page in OUTSIDE.items():
        markdown = re.sub(rf"\]\(((?:\.\./)*)\.\./{name}", rf"](\1{page}", markdown)
    return markdown
