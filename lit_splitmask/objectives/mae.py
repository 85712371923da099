"""MAE (He et al., 2021): the encoder sees a quarter of the patches, a decoder reconstructs the pixels of the rest.

A CLS token, where the backbone has one, stays in the encoder; the original shows it to the decoder too.

B images, N patches, n of them visible, D width, d pixels of a patch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.masking import Masking, UniformMasking, hidden_from, take
from lit_splitmask.models.decoder import Decoder
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_sizes
from lit_splitmask.views import patchify


class MAE(Objective):
    """Masked autoencoding of pixels.

    Its losses: ``loss``, which is ``reconstruct``, the mean squared error over masked patches.

    Args:
        backbone: the encoder; the original has fixed sin-cos positions and a CLS token.
        masking: of which branch A is taken; three quarters hidden at random by default.
        decoder_dim, decoder_depth, decoder_heads: of the decoder.
        normalise_targets: each patch's pixels are standardised.
    """

    held_out_loss = "reconstruct"

    def __init__(
        self,
        backbone: ViT,
        *,
        masking: Masking | None = None,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        normalise_targets: bool = True,
    ) -> None:
        super().__init__(backbone)
        config = backbone.config
        check_sizes(decoder_dim=decoder_dim, decoder_depth=decoder_depth, decoder_heads=decoder_heads)
        if decoder_dim % decoder_heads or decoder_dim % 4:
            raise UserError(
                f"decoder_dim={decoder_dim} must be divisible by decoder_heads={decoder_heads}, and by 4 for its positions."
            )
        self.masking = masking or UniformMasking(0.75)
        self.masking.check(backbone.grid)
        self.normalise_targets = normalise_targets
        self.decoder_embed = nn.Linear(backbone.embed_dim, decoder_dim)
        self.decoder = Decoder(
            backbone.grid,
            decoder_dim,
            num_heads=decoder_heads,
            depth=decoder_depth,
            positions="sincos",
            reposition_visible=True,
        )
        self.head = nn.Linear(decoder_dim, config.in_chans * config.patch_size**2)
        for linear in (self.decoder_embed, self.head):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        images = batch["images"]
        keep, _ = self.masking.split(len(images), self.backbone.grid, generator)
        keep = keep.to(images.device)
        encoded = self.decoder_embed(self.backbone.features(images, keep))
        decoded = self.decoder(encoded, keep)  # (B, N, decoder_dim)
        hidden = hidden_from(keep, self.backbone.num_patches)
        predicted = self.head(take(decoded, hidden)).float()
        loss = (predicted - take(self.targets(images), hidden)).square().mean()
        return {"loss": loss, "reconstruct": loss}

    def targets(self, images: Tensor) -> Tensor:
        """Pixels of each patch, standardised where wanted: (B, C, H, W) -> (B, N, d)."""
        patches = patchify(images, self.backbone.config.patch_size).float()
        if not self.normalise_targets:
            return patches
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) * torch.rsqrt(variance + 1e-6)
