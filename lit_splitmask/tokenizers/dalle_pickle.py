"""Reads OpenAI's pickled encoder of DALL-E without running what a pickle may say.

``encoder.pkl`` is a pickled module, which torch reads only with ``weights_only=False``: any code could hide in it. Here the names
that the file may ask for are a short list; the classes among them are replaced by empty ones that only take their attributes, and
every other name is refused.
"""

import collections
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers.dalle import URL, check_shapes


class _Shell:
    """Takes the place of a module's class: it holds what was pickled, and does nothing."""

    dump_patches = False  # torch asks a module's class for it in files of its older format

    def __new__(cls, *_: Any, **__: Any) -> "_Shell":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple):  # dictionary and slots
            state = {key: value for part in state if part for key, value in part.items()}
        self.__dict__.update(state)


def _nothing(*_: Any, **__: Any) -> None:
    """Takes the place of a function whose result is not needed."""


_SHELLS = {
    ("dall_e.encoder", "Encoder"),
    ("dall_e.encoder", "EncoderBlock"),
    ("dall_e.utils", "Conv2d"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.activation", "ReLU"),
    ("torch.nn.modules.pooling", "MaxPool2d"),
    ("torch.nn.modules.linear", "Identity"),
}
# Functions are wrapped, since a pickle may set attributes of what it gets; torch answers for the names of storages itself.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda *given: torch._utils._rebuild_tensor_v2(*given),
    ("torch._utils", "_rebuild_parameter"): lambda *given: torch._utils._rebuild_parameter(*given),
    ("torch", "device"): torch.device,
    ("torch", "float32"): torch.float32,
    ("functools", "partial"): _nothing,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SHELLS:
            return _Shell
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        raise UserError(
            f"The file asks for {module}.{name}, which the encoder of DALL-E does not need: it is refused, and nothing of it was "
            f"run. Give the file of {URL}."
        )


def _load(file: Any, **settings: Any) -> Any:
    return _Unpickler(file, **settings).load()


def _pickle_module() -> ModuleType:
    """What ``torch.load`` takes for the module pickle."""
    module = ModuleType("restricted_pickle")
    module.Unpickler = _Unpickler  # type: ignore[attr-defined]
    module.load = _load  # type: ignore[attr-defined]
    return module


def read_encoder(path: str | Path) -> dict[str, Tensor]:
    """The encoder's tensors out of OpenAI's ``encoder.pkl``, or out of a plain state dict.

    Raises:
        UserError: The file asks for anything unexpected, cannot be read, or is none of the encoder's.
    """
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}.")
    _refuse_torchscript(path)
    try:
        state = _state_of(torch.load(path, map_location="cpu", weights_only=False, pickle_module=_pickle_module()))
    except UserError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes pickle, torch and its contents raise
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}). Give the file of {URL}.") from None
    check_shapes(state, path)
    return state


def _refuse_torchscript(path: str | Path) -> None:
    """Keeps ``torch.load`` from handing the file to TorchScript, which asks no unpickler and runs the file's own code."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("constants.pkl") or "/code/" in f"/{name}" for name in names):
        raise UserError(
            f"{path} is a TorchScript program, which the encoder of DALL-E is not: it is refused, and nothing of it was run. "
            f"Give the file of {URL}."
        )


def _state_of(found: Any) -> dict[str, Tensor]:
    """The tensors by name; nothing, if it holds anything else."""
    state = dict(_tensors(found, "")) if isinstance(found, _Shell) else found
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    plain = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    return {name.removeprefix("encoder."): value.detach().float() for name, value in state.items()} if plain else {}


def _tensors(shell: _Shell, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters of a module and of those in it, under the names of a state dict."""
    for name, value in vars(shell).get("_parameters", {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
    for name, value in vars(shell).get("_modules", {}).items():
        if isinstance(value, _Shell):
            yield from _tensors(value, f"{prefix}{name}.")
