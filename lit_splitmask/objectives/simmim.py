"""SimMIM (Xie et al., 2021): predict the pixels of hidden patches by a linear head; mask tokens go through the encoder.

Unlike the original, it hides single patches, not squares of 32 pixels (2×2 patches of 16), and uses the backbone that all methods
share: without relative positions and layer scale.

B images, N patches, n of them visible, m hidden, D width, d pixel values in a patch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.masking import Masking, UniformMasking, hidden_from, take
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective
from lit_splitmask.objectives.pictures import Pictures, ToPixels, fill, show_only
from lit_splitmask.views import patchify


class SimMIM(Objective):
    """Regression of the pixels of hidden patches, with mask tokens in the encoder's input.

    Its losses: ``loss``, which is ``reconstruct``, the mean absolute error over the normalised pixels of hidden patches.

    Args:
        backbone: The encoder.
        masking: Draws the visible patches; by default 60 % are hidden at random.

    Raises:
        UserError: ``masking`` cannot mask the backbone's grid.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import SimMIM
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> list(SimMIM(vit)({"images": torch.randn(4, 3, 32, 32)}, torch.Generator().manual_seed(0)))
        ['loss', 'reconstruct']
    """

    held_out_loss = "reconstruct"
    picture_file = "masked.png"
    picture_legend = "Grey: hidden patches. The reconstruction has the true pixels where patches are visible."

    def __init__(self, backbone: ViT, *, masking: Masking | None = None) -> None:
        super().__init__(backbone)
        config = backbone.config
        self.masking = masking or UniformMasking(0.6)
        self.masking.check(backbone.grid)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, backbone.embed_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.head = nn.Linear(backbone.embed_dim, config.in_chans * config.patch_size**2)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        images = batch["images"]
        keep = self.masking.visible(len(images), self.backbone.grid, generator).to(images.device)
        hidden = hidden_from(keep, self.backbone.num_patches)
        targets = take(patchify(images, self.backbone.config.patch_size).float(), hidden)
        loss = (self.predict(images, keep, hidden) - targets).abs().mean()
        return {"loss": loss, "reconstruct": loss}

    def predict(self, images: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """Predicts the pixels of the patches ``hidden`` (B, m) from the patches ``keep`` (B, n): (B, m, d) float32."""
        encoded = self.backbone.masked_features(images, keep, self.mask_token)
        return self.head(take(encoded, hidden)).float()

    def draw(
        self, batch: dict[str, Any], generator: torch.Generator, *, num_images: int, to_pixels: ToPixels
    ) -> Pictures:
        """Draws images, visible patches, and the reconstruction, which has the true pixels where patches are visible."""
        images, patch_size = batch["images"][:num_images], self.backbone.config.patch_size
        keep = self.masking.visible(len(images), self.backbone.grid, generator).to(images.device)
        hidden = hidden_from(keep, self.backbone.num_patches)
        predicted = self.predict(images, keep, hidden)
        pixels = to_pixels(images)
        return {
            "image": pixels,
            "visible": show_only(pixels, keep, patch_size),
            "reconstruction": to_pixels(fill(images, predicted, hidden, patch_size)),
        }
