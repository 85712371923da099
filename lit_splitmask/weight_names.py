"""timm's names of weights that are not plain files: ``local-dir:DIR`` and ``hf-hub:REPOSITORY``."""

import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from lit_splitmask.errors import UserError

WEIGHTS, CONFIG = "model.safetensors", "config.json"

_MOST_CONFIG_BYTES = 2**20


def locate(name: str) -> tuple[Path, dict[str, Any]] | None:
    """The file of weights that a name stands for, and what its configuration says about the pixels.

    A repository is downloaded into the Hugging Face cache, once; only its safetensors file and its configuration.

    Args:
        name: ``local-dir:DIR``, a folder that timm or ``lit-splitmask export --format timm`` wrote; or ``hf-hub:REPOSITORY``,
            with or without ``@REVISION``.

    Returns:
        The path of the file, and ``pixel_mean`` and ``pixel_std`` if the configuration has them; None for any other name, which
        is a path.

    Raises:
        UserError: There is no such folder or repository, it cannot be reached, or it holds no safetensors file.
    """
    kind, _, place = name.partition(":")
    if kind == "local-dir":
        return _found(lambda file: _in_folder(Path(place), file))
    if kind == "hf-hub":
        return _found(lambda file: _in_repository(place, file))
    return None


def _found(get: Callable[[str], Path | None]) -> tuple[Path, dict[str, Any]]:
    weights, config = get(WEIGHTS), get(CONFIG)
    assert weights is not None
    return weights, {} if config is None else _pixels(config)


def _in_folder(folder: Path, file: str) -> Path | None:
    """A file of a folder.

    Raises:
        UserError: There is no such folder, or it lacks the weights.
    """
    if not folder.is_dir():
        raise UserError(f"local-dir:{folder} is not a folder: check the path.")
    path = folder / file
    if path.is_file():
        return path
    if file == WEIGHTS:
        raise UserError(
            f"The folder {folder} has no {WEIGHTS}: give one that timm or lit-splitmask export --format timm wrote."
        )
    return None


def _in_repository(repository: str, file: str) -> Path | None:
    """A file of a repository, downloaded or from the cache.

    Raises:
        UserError: It is not available.
    """
    name, _, revision = repository.partition("@")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each attempt twice
    try:
        validate_repo_id(name)
        return Path(hf_hub_download(name, file, revision=revision or None, local_files_only=_has_no_network()))
    except LocalEntryNotFoundError:
        problem = "it is not in the cache, and cannot be reached"
    except EntryNotFoundError:
        if file == CONFIG:
            return None
        problem = f"it has no {file}"
    except GatedRepoError:
        problem = "it needs an access token"
    except RepositoryNotFoundError:
        problem = "there is no repository of this name"
    except (OSError, ValueError) as error:  # no network, or an invalid name
        problem = " ".join(str(error).split("\n")[0].split())
    raise UserError(
        f"hf-hub:{repository} cannot be loaded ({problem}). Check the name and the network, or download its {WEIGHTS} and give "
        "the file."
    )


def _has_no_network() -> bool:
    """Whether the Hub's name cannot be resolved, which fails at once without a network; the library would retry for 23 s.

    A proxy resolves names itself, and a slow network resolves them slowly: neither counts as no network.
    """
    if getproxies():
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        return True
    return False


def _pixels(path: Path) -> dict[str, Any]:
    """Mean and standard deviation of the pixels, as timm's configuration gives them; nothing if it does not.

    Raises:
        UserError: The file is not such a configuration.
    """
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError("it is too large")
        config = json.loads(path.read_bytes())
        found = config.get("pretrained_cfg", config)
        return {f"pixel_{name}": list(found[name]) for name in ("mean", "std") if name in found}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not the configuration of a timm model ({error}): give an unmodified one.") from None
