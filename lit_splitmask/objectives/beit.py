"""BEiT (Bao et al., 2021): predict the visual words of hidden patches; mask tokens go through the encoder.

B images, N patches, n of them visible, D width. As in the paper's baseline, the backbone is that of all methods: without
relative positions and layer scale.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.masking import BlockMasking, Masking, hidden_from, put, take
from lit_splitmask.models.heads import WordHead
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_even_patches
from lit_splitmask.tokenizers.base import Tokenizer
from lit_splitmask.tokenizers.random_projection import RandomProjection


class BEiT(Objective):
    """Masked image modelling with mask tokens in the encoder's input.

    Its losses: ``loss``, which is ``inpaint`` (cross-entropy in nats over masked patches), and ``word_accuracy`` in [0, 1].

    Args:
        backbone: the encoder.
        masking: of which branch A is taken; BEiT's block masks of 75 of 196 patches by default.
        tokenizer: makes the tokenizer from the side of a patch in the half-size view and the number of channels.
    """

    held_out_loss = "inpaint"

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
        keep, _ = self.masking.split(len(images), self.backbone.grid, generator)
        keep = keep.to(images.device)
        encoded = self.encode(images, keep)
        words = self.tokenizer(batch["token_view"])
        hidden = hidden_from(keep, words.shape[1])
        loss, accuracy = self.head.loss(take(encoded, hidden).flatten(0, 1), words.gather(1, hidden).flatten())
        return {"loss": loss, "inpaint": loss, "word_accuracy": accuracy}

    def encode(self, images: Tensor, keep: Tensor) -> Tensor:
        """Encodes visible patches and mask tokens together: (B, C, H, W), visible patches (B, n) -> (B, N, D)."""
        embedded = self.backbone.embed(images)
        positions = self.backbone.positions_on(self.backbone.grid)
        masked = (self.mask_token + positions).expand(len(images), -1, -1).to(embedded.dtype)
        return self.backbone.encode(put(take(embedded, keep), keep, masked))
