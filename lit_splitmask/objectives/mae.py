"""MAE (He et al., 2021): the encoder sees a quarter of the patches, a decoder reconstructs the pixels of the rest.

A CLS token, if the backbone has one, stays in the encoder; the original shows it to the decoder too.

B images, N patches, n of them visible, m hidden, D width, d pixel values in a patch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.masking import Masking, UniformMasking, hidden_from, take
from lit_splitmask.models.decoder import Decoder
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_sizes
from lit_splitmask.objectives.pictures import Pictures, ToPixels, fill, show_only
from lit_splitmask.views import patchify


class MAE(Objective):
    """Masked autoencoding of pixels.

    Its losses: ``loss``, which is ``reconstruct``, the mean squared error over hidden patches.

    Args:
        backbone: The encoder; the original has fixed sin-cos positions and a CLS token.
        masking: Draws the visible patches; by default three quarters are hidden at random.
        decoder_dim, decoder_depth, decoder_heads: Width, number of blocks and attention heads of the decoder.
        normalise_targets: Whether each patch's pixels are standardised.

    Raises:
        UserError: ``decoder_dim``, ``decoder_depth`` or ``decoder_heads`` is below 1; ``decoder_dim`` is not divisible by
            ``decoder_heads`` and by 4; or ``masking`` cannot mask the backbone's grid.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import MAE
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> mae = MAE(vit, decoder_dim=32, decoder_depth=1, decoder_heads=2)
        >>> list(mae({"images": torch.randn(4, 3, 32, 32)}, torch.Generator().manual_seed(0)))
        ['loss', 'reconstruct']
    """

    held_out_loss = "reconstruct"
    picture_file = "masked.png"
    picture_legend = "Grey: hidden patches. The reconstruction has the true pixels where patches are visible."

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
        keep = self.masking.visible(len(images), self.backbone.grid, generator).to(images.device)
        hidden = hidden_from(keep, self.backbone.num_patches)
        predicted = self.predict(images, keep, hidden)
        loss = (predicted - take(self.targets(images), hidden)).square().mean()
        return {"loss": loss, "reconstruct": loss}

    def predict(self, images: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """Predicts the targets of the patches ``hidden`` (B, m) from the patches ``keep`` (B, n): (B, m, d) float32."""
        encoded = self.decoder_embed(self.backbone.features(images, keep))
        decoded = self.decoder(encoded, keep)  # (B, N, decoder_dim)
        return self.head(take(decoded, hidden)).float()

    def targets(self, images: Tensor) -> Tensor:
        """Pixels of each patch, standardised if requested: (B, C, H, W) -> (B, N, d)."""
        patches = patchify(images, self.backbone.config.patch_size).float()
        if not self.normalise_targets:
            return patches
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) * torch.rsqrt(variance + 1e-6)

    def draw(
        self, batch: dict[str, Any], generator: torch.Generator, *, num_images: int, to_pixels: ToPixels
    ) -> Pictures:
        """Draws images, visible patches, and the reconstruction, which has the true pixels where patches are visible.

        Standardised predictions get the mean and deviation of the true patch.
        """
        images, patch_size = batch["images"][:num_images], self.backbone.config.patch_size
        keep = self.masking.visible(len(images), self.backbone.grid, generator).to(images.device)
        hidden = hidden_from(keep, self.backbone.num_patches)
        predicted = self.predict(images, keep, hidden)
        if self.normalise_targets:
            variance, mean = torch.var_mean(take(patchify(images, patch_size), hidden), dim=-1, keepdim=True)
            predicted = predicted * torch.sqrt(variance + 1e-6) + mean
        pixels = to_pixels(images)
        return {
            "image": pixels,
            "visible": show_only(pixels, keep, patch_size),
            "reconstruction": to_pixels(fill(images, predicted, hidden, patch_size)),
        }
