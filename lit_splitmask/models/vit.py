"""The backbone that pre-training, fine-tuning, probing and dense prediction share: timm's ViT.

B images, N patches, n visible patches, P prefix tokens (1 with a CLS token, otherwise 0), D width.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from timm.layers import build_sincos2d_pos_embed, resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_splitmask.errors import UserError
from lit_splitmask.masking import put, take

SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""Width, depth and heads (DeiT's ViT-Ti/S/B and ViT-L; ViT-S has 6 heads, not MoCo v3's 12)."""

MOST_WEIGHTS = 3 * 10**10
"""Most weights of a network's blocks; the largest published ViT has 22 billion."""


@dataclass(frozen=True)
class ViTConfig:
    """The original ViT (Dosovitskiy et al.): absolute positions, no relative bias, no layer scale.

    Attributes:
        size: Named width, depth and heads: tiny, small, base or large.
        embed_dim, depth, num_heads: Width, number of blocks and attention heads, where they differ from those of ``size``.
        patch_size: Side of a patch in pixels.
        image_size: Side of the input in pixels, a multiple of ``patch_size``.
        in_chans: Input channels.
        class_token: Whether there is a CLS token; without one, descriptors are pooled.
        positions: Learned embeddings, or fixed two-dimensional sin-cos ones, which suit any image size.
        drop_path: Stochastic depth of the last block; it grows linearly from block to block.
    """

    size: Literal["tiny", "small", "base", "large"] = "small"
    patch_size: int = 16
    image_size: int = 224
    in_chans: int = 3
    class_token: bool = False
    positions: Literal["learned", "sincos"] = "learned"
    drop_path: float = 0.0
    embed_dim: int | None = None
    depth: int | None = None
    num_heads: int | None = None

    def resolved(self) -> "ViTConfig":
        """The same configuration with width, depth and heads filled in.

        Raises:
            UserError: ``size`` is unknown; ``patch_size`` is not positive; ``image_size`` is not a positive multiple of it; the
                width, depth or heads are not positive, or too many; the width is not divisible by the heads, or, with sin-cos
                positions, by 4.
        """
        if self.size not in SIZES:
            raise UserError(f"There is no backbone size {self.size!r}: choose one of {', '.join(SIZES)}.")
        if self.patch_size <= 0:
            raise UserError(f"A patch size of {self.patch_size} is impossible: choose a positive one, such as 16.")
        for name in ("embed_dim", "depth", "num_heads"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise UserError(f"A backbone with {name}={number} is impossible: choose at least 1, or leave it out.")
        dim, depth, heads = SIZES[self.size]
        full = replace(
            self,
            embed_dim=self.embed_dim or dim,
            depth=self.depth or depth,
            num_heads=self.num_heads or (max(1, self.embed_dim // 64) if self.embed_dim else heads),
        )
        assert full.embed_dim is not None
        assert full.num_heads is not None
        if self.image_size % self.patch_size or self.image_size <= 0:
            lower = max(self.patch_size, self.image_size // self.patch_size * self.patch_size)
            raise UserError(
                f"An image size of {self.image_size} cannot be cut into patches of {self.patch_size}: choose a multiple "
                f"of the patch size, such as {lower} or {lower + self.patch_size}."
            )
        if (
            min(full.embed_dim, full.depth or 0, full.num_heads) < 1
            or 12 * full.embed_dim**2 * (full.depth or 0) > MOST_WEIGHTS
        ):
            raise UserError(
                f"A network with a width of {full.embed_dim}, {full.depth} blocks and {full.num_heads} heads is impossible or "
                f"too large: choose positive numbers, with at most {MOST_WEIGHTS:,} weights."
            )
        if full.embed_dim % full.num_heads:
            raise UserError(f"A width of {full.embed_dim} cannot be divided among {full.num_heads} attention heads.")
        if self.positions == "sincos" and full.embed_dim % 4:
            raise UserError(f"Fixed sin-cos positions need a width divisible by 4, not {full.embed_dim}.")
        return full

    def timm_args(self, num_classes: int = 0) -> dict[str, Any]:
        """Arguments for ``timm.create_model`` that build this model (with a head: mean pooling, then a norm)."""
        config = self.resolved()
        return {
            "model_name": f"vit_{config.size}_patch16_224",
            "img_size": config.image_size,
            "patch_size": config.patch_size,
            "in_chans": config.in_chans,
            "embed_dim": config.embed_dim,
            "depth": config.depth,
            "num_heads": config.num_heads,
            "class_token": config.class_token,
            "global_pool": "avg",
            "fc_norm": num_classes > 0,
            "num_classes": num_classes,
        }


class ViT(VisionTransformer):
    """timm's Vision Transformer that can also encode a subset of the patches; its state dict is timm's.

    Without classes, its output is the mean of the normalised patch tokens. With ``num_classes``, it pools first, then
    normalises and classifies (BEiT's and MAE's fine-tuning); the norm is then called ``fc_norm``.

    Args:
        config: Shape of the network.
        num_classes: Classes of the linear head; 0 for no head.

    Raises:
        UserError: ``config`` is impossible (see :meth:`ViTConfig.resolved`).
    """

    pos_embed: nn.Parameter

    def __init__(self, config: ViTConfig, num_classes: int = 0) -> None:
        args = config.timm_args(num_classes)
        args.pop("model_name")
        super().__init__(**args, drop_path_rate=config.drop_path)
        self.config = config.resolved()
        if self.config.positions == "sincos":
            self._fix_positions()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.patch_embed.grid_size
        return rows, columns

    @property
    def num_patches(self) -> int:
        """Number of patches N, without prefix tokens."""
        return self.grid[0] * self.grid[1]

    def embed(self, images: Tensor) -> Tensor:
        """Patch embeddings with positions, without prefix tokens: (B, C, H, W) -> (B, N, D)."""
        return self.patch_embed(images) + self.pos_embed[:, self.num_prefix_tokens :]

    def encode(self, tokens: Tensor) -> Tensor:
        """Runs the blocks and the final norm over any set of embedded patches: (B, n, D) -> (B, n, D).

        A CLS token, if the model has one, takes part but is left out of the result.
        """
        return self._run(tokens)[:, self.num_prefix_tokens :]

    def pooled(self, images: Tensor) -> Tensor:
        """One descriptor per image of any size: the CLS token if the model has one, otherwise the mean of the patch features.

        Args:
            images: (B, C, H, W) float, normalised; H and W are multiples of the patch size.

        Returns:
            (B, D).
        """
        tokens = self._run(self._embed_any(images))
        return tokens[:, 0] if self.cls_token is not None else tokens.mean(dim=1)

    def _embed_any(self, images: Tensor) -> Tensor:
        """Does what :meth:`embed` does, for images of any size."""
        patch = self.config.patch_size
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        return self.patch_embed.proj(images).flatten(2).transpose(1, 2) + self.positions_on(grid)

    def _with_class_token(self, tokens: Tensor) -> Tensor:
        """(B, n, D) -> (B, P + n, D)."""
        if self.cls_token is None:
            return tokens
        cls = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([cls.expand(len(tokens), -1, -1), tokens], dim=1)

    def _run(self, tokens: Tensor) -> Tensor:
        """Blocks and final norm: (B, n, D) -> (B, P + n, D)."""
        tokens = self._with_class_token(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.fc_norm(self.norm(tokens))  # one of the two is an identity

    def features(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Features of all patches or of a subset, encoded without the others.

        Args:
            images: (B, C, H, W) float, normalised, of any size; H and W are multiples of the patch size.
            keep: (B, n) int64, the patches to encode; None for all.

        Returns:
            (B, n, D).
        """
        tokens = self._embed_any(images)
        return self.encode(tokens if keep is None else take(tokens, keep))

    def masked_features(self, images: Tensor, keep: Tensor, mask_token: Tensor) -> Tensor:
        """Features of all patches, with mask tokens at the positions of the hidden ones (BEiT, SimMIM).

        Args:
            images: (B, C, H, W) float, normalised.
            keep: (B, n) int64, the visible patches.
            mask_token: (1, 1, D), stands for the embedding of a hidden patch, before positions are added.

        Returns:
            (B, N, D).
        """
        embedded = self.embed(images)
        masked = (mask_token + self.positions_on(self.grid)).expand(len(images), -1, -1).to(embedded.dtype)
        return self.encode(put(take(embedded, keep), keep, masked))

    def blocks_features(self, images: Tensor, indices: list[int]) -> list[Tensor]:
        """Outputs of the blocks ``indices`` (0-based; negative ones count from the end), not normalised: (B, N, D) each."""
        return list(self.get_intermediate_layers(images, n=[i % len(self.blocks) for i in indices]))

    def block_maps(self, images: Tensor, indices: list[int]) -> list[Tensor]:
        """Outputs of the blocks ``indices`` (0-based, ascending) as maps, for images of any size.

        Args:
            images: (B, C, H, W) float, normalised; H and W are multiples of the patch size.
            indices: Numbers of the blocks.

        Returns:
            (B, D, H / patch size, W / patch size) each, not normalised.
        """
        patch = self.config.patch_size
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        tokens = self._with_class_token(self._embed_any(images))
        maps = []
        for number, block in enumerate(self.blocks):
            if self.grad_checkpointing and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
            if number in indices:
                maps.append(tokens[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid))
        return maps

    def positions_on(self, grid: tuple[int, int]) -> Tensor:
        """Positions of the patches of any grid, (1, N, D): learned ones are interpolated, fixed ones computed."""
        known = self.pos_embed[:, self.num_prefix_tokens :]
        if grid == self.grid:
            return known
        if self.config.positions == "sincos":
            return sincos_positions(grid, self.embed_dim)[None].to(known)
        return resample_abs_pos_embed(known, list(grid), list(self.grid), num_prefix_tokens=0)

    def resize(self, image_size: int) -> None:
        """Changes the input size in place: learned positions are interpolated, fixed ones computed.

        Raises:
            UserError: ``image_size`` is not a positive multiple of the patch size.
        """
        self.config = replace(self.config, image_size=image_size).resolved()
        self.set_input_size(img_size=(image_size, image_size))
        if self.config.positions == "sincos":
            self._fix_positions()

    def freeze_below(self, trained_blocks: int) -> None:
        """Freezes the embeddings and all blocks but the last ones; the final norm and the head stay trainable.

        Stochastic depth is removed from the frozen blocks: their features are those of evaluation.

        Args:
            trained_blocks: Number of blocks at the end that stay trainable, from 0 to all of them.
        """
        frozen = self.blocks[: len(self.blocks) - trained_blocks]
        self.patch_embed.requires_grad_(False)
        self.pos_embed.requires_grad_(False)
        if self.cls_token is not None:
            self.cls_token.requires_grad_(False)
        for block in frozen:
            block.requires_grad_(False)
            block.drop_path1 = block.drop_path2 = nn.Identity()

    def _fix_positions(self) -> None:
        table = sincos_positions(self.grid, self.embed_dim)
        prefix = torch.zeros(self.num_prefix_tokens, self.embed_dim)
        self.pos_embed = nn.Parameter(torch.cat([prefix, table])[None].to(self.patch_embed.proj.weight.device), False)


def use_fused_attention(module: nn.Module, enabled: bool) -> None:
    """Switches torch's fused attention on or off in all timm blocks of ``module``; the result is the same.

    On a CPU, the fused kernel's backward pass is slower than plain matrix products for a ViT's short sequences.
    """
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = enabled  # type: ignore[assignment]


def sincos_positions(grid: tuple[int, int], embed_dim: int) -> Tensor:
    """Fixed two-dimensional sin-cos positions, (N, D) float32.

    A quarter of the channels each: sine of the row, sine of the column, cosine of the row, cosine of the column. MAE's and
    MoCo v3's have the same channels in another order, which a network that starts from random weights cannot tell.
    """
    return build_sincos2d_pos_embed(list(grid), dim=embed_dim, interleave_sin_cos=False)
