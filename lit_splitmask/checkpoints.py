"""Backbone weights in files. Files are untrusted: they are read as safetensors or with ``weights_only=True``."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file, write_atomically
from lit_splitmask.models.description import disagreement, wrong_entry
from lit_splitmask.models.vit import ViT, ViTConfig, sincos_positions
from lit_splitmask.pickles import load_tensors, oversized, reason
from lit_splitmask.weight_names import locate
from lit_splitmask.weight_values import check_values, in_fixed_order

log = logging.getLogger(__name__)

FORMAT = "lit_splitmask"
"""Key of this project's entry in a safetensors file's metadata and in a Lightning checkpoint."""

HEAD = ("head.", "fc_norm.", "norm.")
"""Parts of a ViT after its blocks. A classifier has a new ``fc_norm`` (after pooling) in place of ``norm``."""

BODY = ("patch_embed.", "blocks.", "norm_pre.", "reg_token", "dist_token")
"""Parts that contribute to the features of a ViT or a relative of it; weights with more of them than the backbone do not fit."""

_SIZES: dict[int, Literal["tiny", "small", "base", "large"]] = {192: "tiny", 384: "small", 768: "base", 1024: "large"}


@dataclass
class Weights:
    """A backbone's state dict, and what its file says about it.

    Attributes:
        state: Tensors by timm's names.
        info: ``timm`` (arguments of ``timm.create_model``), ``pixel_mean``, ``pixel_std``, ``class_names`` and more; empty for
            files from elsewhere.
        source: The path, for messages.
    """

    state: dict[str, Tensor]
    info: dict[str, Any] = field(default_factory=dict)
    source: str = "the weights"


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors and text metadata as one safetensors file, atomically."""
    saved = to_safetensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    write_atomically(path, in_fixed_order(saved))


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and the text metadata of a safetensors file.

    Raises:
        UserError: The file does not exist, is damaged or truncated, or is not a safetensors file.
    """
    _check_exists(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors ({error}): it is damaged, truncated or of another kind."
        ) from None


def save_backbone(path: str | Path, vit: ViT, *, parts: Mapping[str, Tensor] | None = None, **info: Any) -> None:
    """Writes a backbone to a file. Without ``parts``, ``timm.create_model(**info["timm"])`` loads it strictly.

    Args:
        path: The ``.safetensors`` file.
        vit: The backbone.
        parts: More tensors by name, such as those of a segmentation head.
        info: More metadata, as JSON values: ``pixel_mean``, ``pixel_std``, ``class_names``, ….
    """
    described = {**describe(vit), **info}
    write_safetensors(path, {**vit.state_dict(), **(parts or {})}, {FORMAT: json.dumps(described), "format": "pt"})


def describe(vit: ViT) -> dict[str, Any]:
    """A backbone's shape as JSON values, for files; tensors alone do not show all of it, such as the number of heads."""
    return {"timm": vit.config.timm_args(vit.num_classes), "positions": vit.config.positions}


def load_weights(path: str | Path) -> Weights:
    """Reads a backbone from a safetensors file, timm's weights, or a Lightning checkpoint of this project.

    Args:
        path: The file, or a name of timm: ``local-dir:DIR`` or ``hf-hub:REPOSITORY``.

    Raises:
        UserError: The file does not exist, is damaged, holds more than weights, holds no ViT, does not describe a valid shape, or
            holds values that a network cannot compute with; or a repository cannot be loaded.
    """
    named = locate(str(path))
    path, pixels = named or (path, {})
    if str(path).endswith(".safetensors"):
        state, metadata = read_safetensors(path)
        weights = Weights(state, {**pixels, **_read_info(metadata, path)}, str(path))
    else:
        weights = _from_pickle(path)
    if "patch_embed.proj.weight" not in weights.state or "pos_embed" not in weights.state:
        names = ", ".join(list(weights.state)[:3]) or "nothing"
        raise UserError(
            f"{path} holds no Vision Transformer with timm's names (it holds {names}, …): give the weights of a ViT."
        )
    if oversized(weights.state.values()):
        raise UserError(f"{path} holds tensors whose shape exceeds their stored data: give an unmodified file.")
    try:
        problem = _wrong_description(weights)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem is not None:
        raise UserError(f"{path} does not describe the shape of its network ({problem}): give an unmodified file.")
    check_values(weights.state, weights.source)
    return weights


def _wrong_description(weights: Weights) -> str | None:
    """What is wrong with what a file says about its network; None if nothing is."""
    shown, described = _config_from_tensors(weights.state), config_of(weights)
    num_positions = weights.state["pos_embed"].shape[1] - int(shown.class_token)
    problem = disagreement(described, shown, num_positions) if "timm" in weights.info else None
    return problem or wrong_entry(weights.info, shown.in_chans)


def _read_info(metadata: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    """This project's entry in a file's metadata; empty for files from elsewhere."""
    try:
        return dict(json.loads(metadata.get(FORMAT, "{}")))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"The metadata of {path} cannot be read ({error}): give an unmodified file.") from None


def config_of(weights: Weights | None) -> ViTConfig:
    """The backbone's shape as its file describes it, or as the tensors show it with 64 channels per head; None: the default."""
    if weights is None:
        return ViTConfig()
    if "timm" not in weights.info:
        return _config_from_tensors(weights.state)
    args = weights.info["timm"]
    return ViTConfig(
        size=args["model_name"].split("_")[1],
        patch_size=args["patch_size"],
        image_size=args["img_size"],
        in_chans=args["in_chans"],
        class_token=args["class_token"],
        positions=weights.info.get("positions", "learned"),
        embed_dim=args["embed_dim"],
        depth=args["depth"],
        num_heads=args["num_heads"],
    )


def _config_from_tensors(state: dict[str, Tensor]) -> ViTConfig:
    """The shape of a ViT that only its tensors describe; fixed positions are recognised by their values."""
    width, channels, patch_size, _ = state["patch_embed.proj.weight"].shape
    has_class_token = "cls_token" in state
    positions = state["pos_embed"][0, int(has_class_token) :]
    side = math.isqrt(len(positions))
    is_fixed = (
        width % 4 == 0 and side**2 == len(positions) and torch.equal(positions, sincos_positions((side, side), width))
    )
    return ViTConfig(
        size=_SIZES.get(width, "tiny"),
        patch_size=patch_size,
        image_size=side * patch_size,
        in_chans=channels,
        class_token=has_class_token,
        positions="sincos" if is_fixed else "learned",
        embed_dim=width,
        depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        num_heads=max(1, width // 64),
    )


def load_into(vit: ViT, weights: Weights) -> None:
    """Loads a pre-trained backbone into ``vit`` for further training: everything but the head, with positions resized to fit.

    A CLS token that only the weights have is dropped; one that only ``vit`` has stays as initialised. A classifier
    (``num_classes`` > 0) keeps its own new norm and head; a bare backbone takes the final norm of the weights.

    Args:
        vit: The backbone to load into.
        weights: The pre-trained backbone.

    Raises:
        UserError: Width, depth, patch size or channels differ.
    """
    own = vit.state_dict()
    state = {k: v for k, v in weights.state.items() if k in own and not k.startswith(("head.", "fc_norm."))}
    state["pos_embed"] = _fit_positions(weights.state, vit)
    expected = {k for k in own if not k.startswith(HEAD) and k != "cls_token"}
    different = [
        f"{k} has shape {tuple(v.shape)} instead of {tuple(own[k].shape)}"
        for k, v in state.items()
        if v.shape != own[k].shape
    ]
    missing = sorted(expected - state.keys())
    surplus = sorted(k for k in weights.state if k.startswith(BODY) and k not in own)
    problems = different + [f"{k} is missing" for k in missing] + [f"{k} is not part of it" for k in surplus]
    if problems:
        raise UserError(
            f"{weights.source} does not fit this backbone ({_shape(vit)}): {problems[0]}"
            + (f", and {len(problems) - 1} more differences" if len(problems) > 1 else "")
            + ". Give the backbone the same width, depth, patch size and channels as the weights."
        )
    vit.load_state_dict(state, strict=False)


def _fit_positions(state: dict[str, Tensor], vit: ViT) -> Tensor:
    """The position embeddings of the weights, fitted to the prefix tokens and the grid of ``vit``."""
    positions = state["pos_embed"]
    their_prefix = 1 if "cls_token" in state else 0
    if positions.ndim != 3 or positions.shape[-1] != vit.embed_dim or vit.config.positions == "sincos":
        return vit.pos_embed.detach() if vit.config.positions == "sincos" else positions
    prefix, grid = positions[:, :their_prefix], positions[:, their_prefix:]
    if grid.shape[1] != vit.num_patches:
        side = math.isqrt(grid.shape[1])
        if side == 0 or side**2 != grid.shape[1]:
            return positions
        grid = resample_abs_pos_embed(grid, list(vit.grid), [side, side], num_prefix_tokens=0)
    if vit.num_prefix_tokens:
        prefix = prefix if their_prefix else vit.pos_embed[:, :1].detach()
        return torch.cat([prefix, grid], dim=1)
    return grid


def report_positions(vit: ViT, weights: Weights) -> None:
    """Logs whether learned positions were interpolated to load weights into a backbone."""
    num_learned = weights.state["pos_embed"].shape[1] - ("cls_token" in weights.state)
    if vit.config.positions == "learned" and num_learned != vit.num_patches:
        log.info(
            "The learned positions of %s are interpolated from %d patches to %d, which costs accuracy until they have "
            "adapted; a backbone pre-trained with positions=sincos fits any size.",
            weights.source,
            num_learned,
            vit.num_patches,
        )


def _from_pickle(path: str | Path) -> Weights:
    """Reads a backbone from a pickled state dict or a Lightning checkpoint, which holds the prefix of the backbone's names."""
    _check_exists(path)
    try:
        loaded = load_tensors(path)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, … for damaged and foreign files
        raise UserError(
            f"{path} cannot be loaded: it is damaged, truncated, or holds more than weights ({reason(error)})."
        ) from None
    state: Any = loaded.get("state_dict", loaded.get("model", loaded)) if isinstance(loaded, dict) else {}
    state = (
        {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if isinstance(state, dict)
        else {}
    )
    info = loaded.get(FORMAT) if isinstance(loaded, dict) else None
    info = dict(info) if isinstance(info, dict) else {}
    known = (str(info.pop("prefix", "")), "objective.backbone.", "backbone.")
    prefix = next((prefix for prefix in known if f"{prefix}patch_embed.proj.weight" in state), "")
    return Weights({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, info, str(path))


def _check_exists(path: str | Path) -> None:
    if not is_file(path):
        raise UserError(f"The file {path} does not exist: check the path.")


def _shape(vit: ViT) -> str:
    c = vit.config
    return f"width {c.embed_dim}, depth {c.depth}, patch size {c.patch_size}, {c.in_chans} channels"
