"""What the values of weights must be, and files of weights whose bytes depend on nothing else."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from lit_splitmask.errors import UserError

_VIT_PARTS = ("patch_embed.", "blocks.", "norm", "fc_norm.", "head.", "pos_embed", "cls_token")
"""Beginnings of the names of a ViT's tensors; other parts of a network may count in whole numbers, such as batch norm."""


def check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Checks that a network can compute with weights.

    Args:
        state: Tensors by name.
        source: The file, for messages.

    Raises:
        UserError: A tensor of the ViT is not of floats, or a value is NaN or infinite.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            if name.startswith(_VIT_PARTS):
                kind = str(tensor.dtype).removeprefix("torch.")
                raise UserError(f"{source} holds {name} as {kind}, but weights are floats: give an unmodified file.")
        elif not torch.isfinite(tensor).all():
            raise UserError(
                f"{source} holds NaN or infinite values in {name}, so it cannot be used: the training that wrote it had "
                "failed, or the file is damaged. Give an earlier checkpoint."
            )


def in_fixed_order(file: bytes) -> bytes:
    """A safetensors file with sorted metadata: the library orders them at random, so equal files would have different checksums.

    Args:
        file: The whole file: the length of the header in 8 bytes, the header as JSON, and the tensors.
    """
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns tensors to 8 bytes
    return len(text).to_bytes(8, "little") + text + file[end:]
