"""Reads OpenAI's pickled encoder of DALL-E without running what a pickle may say.

``encoder.pkl`` is a pickled module, which torch reads only with ``weights_only=False``: any code could hide in it. Here the names
that the file may ask for are a short list; the classes among them are replaced by empty ones that only take their attributes, and
every other name is refused.
"""

import collections
import pickle
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
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "device"): torch.device,
    ("torch", "float32"): torch.float32,
    ("torch", "FloatStorage"): torch.FloatStorage,
    ("torch", "HalfStorage"): torch.HalfStorage,
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
    try:
        found = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_pickle_module())
    except UserError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes pickle and torch raise
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}). Give the file of {URL}.") from None
    if isinstance(found, _Shell):
        state = dict(_tensors(found, ""))
    elif isinstance(found, dict):
        state = found.get("state_dict", found)
    else:
        state = {}
    if not all(isinstance(value, Tensor) for value in state.values()):
        state = {}
    state = {name.removeprefix("encoder."): value.detach().float() for name, value in state.items()}
    check_shapes(state, path)
    return state


def _tensors(shell: _Shell, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters of a module and of those in it, under the names of a state dict."""
    for name, value in vars(shell).get("_parameters", {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
    for name, value in vars(shell).get("_modules", {}).items():
        if isinstance(value, _Shell):
            yield from _tensors(value, f"{prefix}{name}.")
