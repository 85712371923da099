"""The command ``export``: options, the folder, the check, and what it prints."""

import argparse
import os
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lit_splitmask.commands.export.card import model_card
from lit_splitmask.commands.export.formats import ONNX_LIBRARIES, WRITERS, difference
from lit_splitmask.commands.export.trained import Trained, read_trained
from lit_splitmask.commands.parser import OptionParser, words
from lit_splitmask.commands.request import Request
from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file, whole_folder, write_atomically
from lit_splitmask.shell import copyable, say

TOLERANCE = 1e-4
"""Largest difference between the outputs of the original and of what was written, as a share of the largest output or of 1."""

_NEXT = {
    "timm": """. In Python:
  timm.create_model("local-dir:{out}", pretrained=True)
To share it:
  hf upload USER/NAME {quoted}""",
    "onnx": """. In Python:
  onnxruntime.InferenceSession("{out}/model.onnx")""",
    "torch-export": """. In Python:
  torch.export.load("{out}/model.pt2").module()""",
}
"""What to do with the folder."""


def export(request: Request) -> int:
    """Writes a folder for each format, with the network, its preprocessing and a model card, whole or not at all.

    Raises:
        UserError: The weights cannot be exported, the options are wrong, a library is missing, a folder is not empty or cannot
            be written, or the outputs differ.
    """
    options = _options(request)
    stem = options.out or Path(options.weights).with_suffix("")
    alone = options.out and len(options.format) == 1
    folders = {name: Path(options.out if alone else f"{stem}-{name}") for name in options.format}
    for out in folders.values():
        _check_free(out)
    if lacking := missing_libraries(options.format):
        raise UserError(f"ONNX files need {' and '.join(lacking)}: pip install 'lit-splitmask[export]'.")
    trained = read_trained(options.weights, options.crop_ratio)
    if trained.kind == "segmenter" and "timm" in folders:
        raise UserError(
            f"{options.weights} holds a segmenter, which timm does not support: give --format onnx or torch-export."
        )
    for name, out in folders.items():
        _write(trained, name, out)
    run = Path(options.weights).parent
    if is_file(run / "config.yaml"):
        say(f"To view the run of these weights as a page:\n{copyable(['lit-splitmask', 'report', str(run)])}")
    return 0


def command_to_export(weights: Path, formats: Sequence[str]) -> list[str]:
    """The command that exports weights, in those of the formats whose libraries are installed.

    Args:
        weights: The file of weights.
        formats: Names of formats; the first is always included.
    """
    here = [name for name in formats if not missing_libraries([name])] or formats[:1]
    return ["lit-splitmask", "export", "--weights", str(weights), "--format", ",".join(here)]


def missing_libraries(formats: Sequence[str]) -> list[str]:
    """The libraries that formats need and that are not installed."""
    return [name for name in ONNX_LIBRARIES if "onnx" in formats and find_spec(name) is None]


def _write(trained: Trained, format_name: str, out: Path) -> None:
    """Writes the folder of one format, and says what to do with it."""
    card = model_card(trained, format_name, out)
    with whole_folder(out) as folder:
        largest = difference(trained, WRITERS[format_name](folder, trained))
        if not largest <= TOLERANCE:  # also if it is NaN
            raise UserError(
                f"The outputs of the exported network differ from the original's by {largest:.2g}, more than {TOLERANCE:g}, so "
                "nothing was written: give another --format."
            )
        write_atomically(folder / "README.md", card.encode())
    say(
        f"Wrote {out}/: a {trained.kind}, whose outputs differ from the original's by at most {largest:.2g}. Its README.md has "
        f"the code that reads an image{_NEXT[format_name].format(out=out, quoted=shlex.quote(str(out)))}"
    )


def _options(request: Request) -> argparse.Namespace:
    parser = OptionParser(prog="lit-splitmask export", allow_abbrev=False)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--format", type=_formats, required=True)
    parser.add_argument("--out")
    parser.add_argument("--crop_ratio", type=float)
    options = parser.parse_args(request.settings())
    if options.crop_ratio is not None and not 0 < options.crop_ratio <= 1:
        raise UserError(f"--crop_ratio is {options.crop_ratio:g}; it must be more than 0 and at most 1.")
    return options


def _formats(text: str) -> tuple[str, ...]:
    """One format, or several with commas between."""
    names = words(text)
    unknown = [name for name in names if name not in WRITERS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'} is not one of {', '.join(WRITERS)}")
    return tuple(dict.fromkeys(names))


def _check_free(out: Path) -> None:
    """Checks that a folder can get this name."""
    if out.name in ("", ".."):
        raise UserError(f"--out {out} does not name a folder: give a new folder with --out DIR.")
    if os.path.lexists(out) and (out.is_symlink() or not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists: move it away, or give another folder with --out DIR.")
