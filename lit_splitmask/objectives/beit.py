"""BEiT (Bao et al., 2021): predict the visual words of hidden patches; mask tokens go through the encoder.

B images, N patches, n of them visible, D width. The backbone is the one that all methods share, as in the paper's baseline:
without relative positions and layer scale.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.masking import BlockMasking, Masking, hidden_from, take
from lit_splitmask.models.heads import WordHead
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_even_patches
from lit_splitmask.objectives.pictures import Pictures, ToPixels, draw_words, show_only
from lit_splitmask.tokenizers.base import Tokenizer
from lit_splitmask.tokenizers.random_projection import RandomProjection


class BEiT(Objective):
    """Masked image modelling with mask tokens in the encoder's input.

    Its losses: ``loss``, which is ``inpaint`` (cross-entropy in nats over hidden patches), and ``word_accuracy`` in [0, 1].

    Args:
        backbone: The encoder.
        masking: Draws the visible patches; by default BEiT's block masks, which hide 75 of 196 patches.
        tokenizer: Makes the tokenizer from the side of a patch in the half-size view and the number of channels.

    Raises:
        UserError: The patch size is odd, or ``masking`` cannot mask the backbone's grid.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import BEiT
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> batch = {"images": torch.randn(4, 3, 32, 32), "token_view": torch.rand(4, 3, 16, 16)}
        >>> list(BEiT(vit)(batch, torch.Generator().manual_seed(0)))
        ['loss', 'inpaint', 'word_accuracy']
    """

    held_out_loss = "inpaint"
    picture_file = "masked.png"
    picture_legend = (
        "Grey: hidden patches; in the predicted words, visible ones. A word is the mean of the patches that have it."
    )

    def __init__(
        self,
        backbone: ViT,
        *,
        masking: Masking | None = None,
        tokenizer: Callable[[int, int], Tokenizer] = RandomProjection,
    ) -> None:
        super().__init__(backbone)
        config = backbone.config
        self.masking = masking or BlockMasking(mask_ratio=75 / 196)
        self.masking.check(backbone.grid)
        check_even_patches(config.patch_size)
        self.tokenizer = tokenizer(config.patch_size // 2, config.in_chans)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, backbone.embed_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.head = WordHead(backbone.embed_dim, self.tokenizer.vocabulary)

    @property
    def tokenizer_to_fit(self) -> Tokenizer:
        return self.tokenizer

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        images = batch["images"]
        keep = self.masking.visible(len(images), self.backbone.grid, generator).to(images.device)
        encoded = self.backbone.masked_features(images, keep, self.mask_token)
        words = self.tokenizer(batch["token_view"])
        hidden = hidden_from(keep, words.shape[1])
        loss, accuracy = self.head.loss(take(encoded, hidden).flatten(0, 1), words.gather(1, hidden).flatten())
        return {"loss": loss, "inpaint": loss, "word_accuracy": accuracy}

    def draw(
        self, batch: dict[str, Any], generator: torch.Generator, *, num_images: int, to_pixels: ToPixels
    ) -> Pictures:
        """Draws images, visible patches, true words, and predicted words, only where patches are hidden."""
        images, views = batch["images"][:num_images], batch["token_view"]
        keep = self.masking.visible(len(images), self.backbone.grid, generator).to(images.device)
        words = self.tokenizer(views[:num_images])
        hidden = hidden_from(keep, words.shape[1])
        encoded = self.backbone.masked_features(images, keep, self.mask_token)
        predicted = words.scatter(1, hidden, self.head.predict(take(encoded, hidden)))
        pixels, patch_size = to_pixels(images), self.backbone.config.patch_size
        return {
            "image": pixels,
            "visible": show_only(pixels, keep, patch_size),
            "true words": draw_words(self.tokenizer, views, words),
            "predicted words": show_only(draw_words(self.tokenizer, views, predicted), hidden, patch_size),
        }
