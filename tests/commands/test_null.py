"""``null`` is a value of every optional part of a setting, however deep the option names it."""

from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from lit_splitmask.commands.parser import CONFIG_MODE, Parser
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.loading.budget import Budget

OPTIONAL = [
    f"{setting}.{name}"
    for setting, cls in (("budget", Budget), ("splits", SplitOptions))
    for name, hint in get_type_hints(cls).items()
    if NoneType in get_args(hint)
]


@dataclass
class Part:
    """A part of other settings."""

    title: str | None = None
    numbers: list[int | None] | None = None


class Whole:
    """What has such a part."""

    def __init__(self, part: Part | None = None) -> None:
        self.part = part


def read(base: type, *options: str) -> Any:
    parser = Parser(parser_mode=CONFIG_MODE)
    parser.add_subclass_arguments(base, "data")
    return parser.parse_args(list(options)).data.init_args


@pytest.mark.parametrize("option", OPTIONAL)
def test_each_optional_part_of_the_images_settings_takes_null(option: str) -> None:
    settings = read(ImageData, "--data=ImageFolder", "--data.root=.", f"--data.{option}=1", f"--data.{option}=null")
    assert settings[option] is None


@pytest.mark.parametrize(
    ("option", "value"),
    [("title=null", None), ("title=None of them", "None of them"), ("numbers=[null, 1]", [None, 1])],
)
def test_null_is_no_text_and_a_text_is_no_null(option: str, value: Any) -> None:
    name = option.partition("=")[0]
    assert read(Whole, f"--data={__name__}.Whole", f"--data.part.{option}").part[name] == value
