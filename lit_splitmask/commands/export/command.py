"""The command ``export``: options, the folder, the check, and what it prints."""

import argparse
import os
import shlex
from importlib.util import find_spec
from pathlib import Path

from lit_splitmask.commands.export.card import model_card
from lit_splitmask.commands.export.formats import ONNX_LIBRARIES, WRITERS, difference
from lit_splitmask.commands.export.trained import read_trained
from lit_splitmask.commands.parser import OptionParser
from lit_splitmask.commands.request import Request
from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file, whole_folder, write_atomically
from lit_splitmask.shell import copyable

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
    """Writes a folder with the network, its preprocessing and a model card, whole or not at all.

    Raises:
        UserError: The weights cannot be exported, the options are wrong, a library is missing, the folder is not empty or cannot
            be written, or the outputs differ.
    """
    options = _options(request)
    out = Path(options.out or f"{Path(options.weights).with_suffix('')}-{options.format}")
    _check_free(out)
    lacking = [name for name in ONNX_LIBRARIES if options.format == "onnx" and find_spec(name) is None]
    if lacking:
        raise UserError(f"ONNX files need {' and '.join(lacking)}: pip install 'lit-splitmask[export]'.")
    trained = read_trained(options.weights, options.crop_ratio)
    card = model_card(trained, options.format, out)
    if trained.kind == "segmenter" and options.format == "timm":
        raise UserError(f"{options.weights} holds a segmenter, and timm has none: give --format onnx or torch-export.")
    with whole_folder(out) as folder:
        largest = difference(trained, WRITERS[options.format](folder, trained))
        if not largest <= TOLERANCE:  # also if it is NaN
            raise UserError(
                f"The outputs of the exported network differ from the original's by {largest:.2g}, more than {TOLERANCE:g}, so "
                "nothing was written: give another --format."
            )
        write_atomically(folder / "README.md", card.encode())
    print(
        f"Wrote {out}/: a {trained.kind}, whose outputs differ from the original's by at most {largest:.2g}. Its README.md has "
        f"the code that reads an image{_NEXT[options.format].format(out=out, quoted=shlex.quote(str(out)))}"
    )
    run = Path(options.weights).parent
    if is_file(run / "config.yaml"):
        print(f"To read the run of these weights as a page:\n{copyable(['lit-splitmask', 'report', str(run)])}")
    return 0


def _options(request: Request) -> argparse.Namespace:
    parser = OptionParser(prog="lit-splitmask export", allow_abbrev=False)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--format", choices=tuple(WRITERS), required=True)
    parser.add_argument("--out")
    parser.add_argument("--crop_ratio", type=float)
    options = parser.parse_args(request.settings())
    if options.crop_ratio is not None and not 0 < options.crop_ratio <= 1:
        raise UserError(f"--crop_ratio is {options.crop_ratio:g}; it must be more than 0 and at most 1.")
    return options


def _check_free(out: Path) -> None:
    """Checks that a folder can get this name."""
    if out.name in ("", ".."):
        raise UserError(f"--out {out} has no name of its own: give a new folder with --out DIR.")
    if os.path.lexists(out) and (out.is_symlink() or not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists: move it away, or give another folder with --out DIR.")
