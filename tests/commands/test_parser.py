"""jsonargparse's errors, shortened."""

import pytest

from lit_splitmask.commands.parser import OptionParser, shorten


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Parser key \"model.optim.lr\":\n  Expected a <class 'float'>. Got value: fast",
            "model.optim.lr is fast, but must be of type float.",
        ),
        (
            "Parser key \"size\":\n  Expected a typing.Literal['tiny', 'base']. Got value: huge",
            "size is huge, but must be one of 'tiny', 'base'.",
        ),
        ("the following arguments are required: data", "The folder of images is missing: give --data.root DIR."),
        ("Problem:\n  - first\n  - second\n  - first\n", "Problem: first second"),
    ],
)
def test_an_error_is_one_line(message: str, expected: str) -> None:
    assert shorten(message) == expected


def test_an_unknown_class_is_named_with_its_option() -> None:
    message = (
        'Parser key "model.objective":\n  Not a valid subclass of Objective\n  Expected a dot import path string: Nope'
    )
    assert shorten(message).startswith("There is no class 'Nope' for model.objective: give one of BEiT, DINO")


def test_a_wrong_option_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    parser = OptionParser(allow_abbrev=False)
    parser.add_argument("--seeds", type=int)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--seeds", "x"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: argument --seeds: invalid int value: 'x'\n"
