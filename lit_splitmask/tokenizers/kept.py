"""Codebooks that are fitted once and kept in files for the next run on the same data and settings."""

import hashlib
import json
import logging
from pathlib import Path

import torch
from torch import Tensor

from lit_splitmask.checkpoints import read_safetensors, write_safetensors
from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers.base import Codebook

log = logging.getLogger(__name__)


def fitting_settings(tokenizer: Codebook, num_crops: int, seed: int) -> str | None:
    """All that a fitted codebook depends on besides the data, as text.

    Args:
        tokenizer: The tokenizer to fit.
        num_crops: Number of training crops that it is fitted on.
        seed: Seed of the fit.

    Returns:
        The same text for the same codebook; None if the tokenizer does not say what its fit depends on.
    """
    if tokenizer.fitted_by is None:
        return None
    return json.dumps([tokenizer.settings(), tokenizer.fitted_by, num_crops, seed], sort_keys=True)


def load_kept(tokenizer: Codebook, path: Path) -> bool:
    """Loads a codebook that :func:`keep` wrote, bit for bit as it was fitted.

    A file that is damaged is not used, and a warning says so.

    Returns:
        Whether there was an intact one.
    """
    if not path.exists():
        return False
    try:
        tensors, metadata = read_safetensors(path)
        codebook = tensors["codebook"]
        is_whole = (
            metadata["digest"] == _digest(codebook)
            and codebook.shape == tokenizer.codebook.shape
            and json.loads(metadata["tokenizer"]) == tokenizer.settings()
        )
    except (UserError, KeyError, ValueError):
        is_whole = False
    if not is_whole:
        log.warning("The kept codebook %s is damaged, so the visual words are fitted again.", path)
        return False
    tokenizer.codebook.copy_(codebook)
    tokenizer.fitted.fill_(True)
    log.info("Visual words of an earlier run on the same images and settings: %s", path)
    return True


def keep(tokenizer: Codebook, path: Path) -> None:
    """Writes a fitted codebook, whole or not at all. If it cannot be written, a warning says so and the run continues."""
    metadata = {"tokenizer": json.dumps(tokenizer.settings()), "digest": _digest(tokenizer.codebook)}
    try:
        write_safetensors(path, {"codebook": tokenizer.codebook}, metadata)
    except UserError as error:
        log.warning("The visual words are not kept for the next run. %s", error)


def _digest(codebook: Tensor) -> str:
    data = codebook.detach().cpu().to(torch.float32).contiguous().numpy().tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
