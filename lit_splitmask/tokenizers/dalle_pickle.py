"""Reads OpenAI's pickled encoder of DALL-E without running code from the file.

``encoder.pkl`` is a pickled module, which torch reads only with ``weights_only=False``, so it could run any code. This reader
allows a short list of names. It replaces the classes among them by empty ones that only take attributes, and refuses every other
name.
"""

import collections
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file
from lit_splitmask.pickles import NotPlainError, check_archive, oversized
from lit_splitmask.tokenizers.dalle import URL, check_shapes

_LARGEST = 2**30
"""Bytes; the encoder takes 215 MB."""


class _Shell:
    """Stands in for a module's class: holds the pickled attributes and does nothing."""

    dump_patches = False  # torch reads it from a module's class in files of its older format

    def __new__(cls, *_: Any, **__: Any) -> "_Shell":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple):  # the dict and the slots
            state = {key: value for part in state if part for key, value in part.items()}
        self.__dict__.update(state)


def _nothing(*_: Any, **__: Any) -> None:
    """Stands in for a function whose result is not needed."""


_SHELLS = {
    ("dall_e.encoder", "Encoder"),
    ("dall_e.encoder", "EncoderBlock"),
    ("dall_e.utils", "Conv2d"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.activation", "ReLU"),
    ("torch.nn.modules.pooling", "MaxPool2d"),
    ("torch.nn.modules.linear", "Identity"),
}
# Functions are wrapped, since a pickle may set attributes of what it gets. torch resolves the names of storages itself.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda *given: torch._utils._rebuild_tensor_v2(*given),
    ("torch._utils", "_rebuild_parameter"): lambda *given: torch._utils._rebuild_parameter(*given),
    ("torch", "device"): torch.device,
    ("torch", "float32"): torch.float32,
    ("functools", "partial"): _nothing,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _Unpickler(pickle._Unpickler):
    """Gives a pickle the allowed names only.

    It is Python's own: the one in C makes room for 2 billion objects if a tiny pickle uses such an index.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SHELLS:
            return _Shell
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise UserError(
            f"The file asks for {module}.{name}, which the encoder of DALL-E does not need: it is refused, and none of its code "
            f"was run. Give the file of {URL}."
        )


def _load(file: Any, **settings: Any) -> Any:
    return _Unpickler(file, **settings).load()


def _pickle_module() -> ModuleType:
    """A module that ``torch.load`` uses instead of pickle."""
    module = ModuleType("restricted_pickle")
    module.Unpickler = _Unpickler  # type: ignore[attr-defined]
    module.load = _load  # type: ignore[attr-defined]
    return module


def read_encoder(path: str | Path) -> dict[str, Tensor]:
    """Reads the encoder's tensors from OpenAI's ``encoder.pkl`` or from a plain state dict.

    Args:
        path: The pickled file.

    Returns:
        Float32 tensors by their names in OpenAI's module.

    Raises:
        UserError: The file does not exist, cannot be read, asks for a name that is not allowed, is a TorchScript program, or does
            not hold the encoder.
    """
    if not is_file(path):
        raise UserError(f"The file {path} does not exist: check the path.")
    if Path(path).stat().st_size > _LARGEST:
        raise UserError(f"{path} is larger than 1 GiB, so it is not the encoder of DALL-E. Give the file of {URL}.")
    file = io.BytesIO(Path(path).read_bytes())  # what is checked is what is loaded, also if the file changes meanwhile
    try:
        check_archive(file)
        state = _state_of(torch.load(file, map_location="cpu", weights_only=False, pickle_module=_pickle_module()))
    except UserError:
        raise
    except NotPlainError as error:
        raise UserError(
            f"{path} is {error}, which the encoder of DALL-E is not: it is refused, and none of its code was run. Give the file "
            f"of {URL}."
        ) from None
    except Exception as error:  # a damaged or foreign file can raise anything
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}). Give the file of {URL}.") from None
    check_shapes(state, path)
    return {name: value.float() for name, value in state.items()}


def _state_of(loaded: Any) -> dict[str, Tensor]:
    """The tensors of a module or a state dict by name; empty for anything else."""
    state = dict(_tensors(loaded, "")) if isinstance(loaded, _Shell) else loaded
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    plain = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not plain or oversized(state.values()):
        return {}
    return {name.removeprefix("encoder."): value.detach() for name, value in state.items()}


def _tensors(shell: _Shell, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a module and its submodules, by their names in a state dict."""
    for name, value in vars(shell).get("_parameters", {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
    for name, value in vars(shell).get("_modules", {}).items():
        if isinstance(value, _Shell):
            yield from _tensors(value, f"{prefix}{name}.")
