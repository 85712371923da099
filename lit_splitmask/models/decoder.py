"""The shallow decoder over encoded patches and mask tokens (Section 4.2).

B images, N patches, n visible patches, D width.
"""

from typing import Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lit_splitmask.masking import put, take
from lit_splitmask.models.vit import sincos_positions


class Decoder(nn.Module):
    """Transformer blocks over the full sequence, in which mask tokens with positions stand for the hidden patches.

    Args:
        grid: Rows and columns of patches.
        embed_dim: Width D of its input and blocks.
        num_heads: Attention heads.
        depth: Number of blocks (2 in the paper).
        positions: Learned or fixed sin-cos positions of the mask tokens.
        reposition_visible: Whether the positions are added to the encoded patches as well (MAE does; the paper adds them to the
            mask tokens only).
    """

    def __init__(
        self,
        grid: tuple[int, int],
        embed_dim: int,
        *,
        num_heads: int,
        depth: int = 2,
        positions: Literal["learned", "sincos"] = "learned",
        reposition_visible: bool = False,
    ) -> None:
        super().__init__()
        self.reposition_visible = reposition_visible
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        if positions == "sincos":
            self.pos_embed = nn.Parameter(sincos_positions(grid, embed_dim)[None], requires_grad=False)
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList([Block(embed_dim, num_heads, qkv_bias=True) for _ in range(depth)])
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.apply(_init_linear)

    def forward(self, encoded: Tensor, keep: Tensor) -> Tensor:
        """Adds mask tokens for the hidden patches and decodes: (B, n, D) at ``keep`` (B, n) -> (B, N, D)."""
        if self.reposition_visible:
            encoded = encoded + take(self.pos_embed.expand(len(keep), -1, -1), keep)
        masked = (self.mask_token + self.pos_embed).expand(len(keep), -1, -1).to(encoded.dtype)
        tokens = put(encoded, keep, masked)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
