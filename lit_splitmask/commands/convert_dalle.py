"""``lit-splitmask convert-dalle``: converts OpenAI's pickled d-VAE encoder to safetensors, without running any code in it."""

import tempfile
from http.client import HTTPException
from pathlib import Path

from lit_splitmask.commands.parser import OptionParser
from lit_splitmask.commands.request import Request
from lit_splitmask.errors import UserError
from lit_splitmask.files import bounded_waiting
from lit_splitmask.reserved import reserved
from lit_splitmask.shell import say
from lit_splitmask.tokenizers.dalle import URL, save_encoder
from lit_splitmask.tokenizers.dalle_pickle import read_encoder


def convert_dalle(request: Request) -> int:
    """Reads or downloads the encoder, and writes its tensors.

    Raises:
        UserError: The encoder cannot be downloaded or read, or the output file exists or is not named ``.safetensors``.
    """
    parser = OptionParser(prog="lit-splitmask convert-dalle", allow_abbrev=False)
    parser.add_argument("--weights", default=URL)
    parser.add_argument("--out", default="dalle_encoder.safetensors")
    given = parser.parse_args(request.settings())
    out = Path(given.out)
    if out.suffix != ".safetensors" or out.exists():
        problem = "already exists" if out.exists() else "does not end in .safetensors"
        raise UserError(f"{out} {problem}: give another file with --out FILE.safetensors.")
    with reserved(out, "give another file with --out FILE.safetensors"):
        if given.weights.startswith("https://"):
            with tempfile.TemporaryDirectory() as directory:
                state = read_encoder(_download(given.weights, Path(directory) / "encoder.pkl"))
        else:
            state = read_encoder(given.weights)
        save_encoder(state, out)
    say(
        f"Wrote {out}. To pre-train with its words, add\n"
        f"  --model.objective.tokenizer=DallE --model.objective.tokenizer.weights={out}"
    )
    return 0


def _download(url: str, path: Path) -> Path:
    import torch

    try:
        with bounded_waiting():
            torch.hub.download_url_to_file(url, str(path))
    except (OSError, HTTPException) as error:
        raise UserError(
            f"{url} cannot be downloaded ({error}): download it on another machine and give the file with --weights FILE."
        ) from None
    return path
