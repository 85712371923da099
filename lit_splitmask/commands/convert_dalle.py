"""``lit-splitmask convert-dalle``: OpenAI's pickled d-VAE encoder as safetensors, read without running what is in it."""

import tempfile
from http.client import HTTPException
from pathlib import Path

from jsonargparse import ArgumentParser

from lit_splitmask.commands.request import Request
from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers.dalle import URL, save_encoder
from lit_splitmask.tokenizers.dalle_pickle import read_encoder


def convert_dalle(request: Request) -> int:
    """Reads a file, or fetches it, and writes its tensors."""
    parser = ArgumentParser(prog="lit-splitmask convert-dalle")
    parser.add_argument("--weights", type=str, default=URL)
    parser.add_argument("--out", type=str, default="dalle_encoder.safetensors")
    given = parser.parse_args(request.settings())
    out = Path(given.out)
    if out.suffix != ".safetensors" or out.exists():
        problem = "exists already" if out.exists() else "does not end in .safetensors"
        raise UserError(f"{out} {problem}: give another file by --out FILE.safetensors.")
    if given.weights.startswith("https://"):
        with tempfile.TemporaryDirectory() as directory:
            state = read_encoder(_fetch(given.weights, Path(directory) / "encoder.pkl"))
    else:
        state = read_encoder(given.weights)
    save_encoder(state, out)
    print(
        f"Wrote {out}. Pre-train on its words with\n"
        f"  --model.objective.tokenizer=DallE --model.objective.tokenizer.weights={out}"
    )
    return 0


def _fetch(url: str, path: Path) -> Path:
    import torch

    try:
        torch.hub.download_url_to_file(url, str(path))
    except (OSError, HTTPException) as error:
        raise UserError(
            f"{url} cannot be fetched ({error}): fetch it elsewhere, and give the file by --weights FILE."
        ) from None
    return path
