"""SplitMask (Section 4): split, inpaint, match.

B images, N patches, n of them visible to a branch, M hidden ones in all, D width, V words.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.losses import info_nce
from lit_splitmask.masking import BlockMasking, Masking, hidden_from, take
from lit_splitmask.models.decoder import Decoder
from lit_splitmask.models.heads import WordHead
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_even_patches
from lit_splitmask.tokenizers.base import Tokenizer
from lit_splitmask.tokenizers.random_projection import RandomProjection


class SplitMask(Objective):
    """Two disjoint sets of patches, encoded apart, each inpainting what it does not see, matched by a global loss.

    Its losses: ``loss``; ``inpaint`` (cross-entropy in nats) and ``word_accuracy``; ``match`` (InfoNCE in nats) and
    ``match_accuracy``; the accuracies are in [0, 1].

    Args:
        backbone: the encoder.
        masking: how patches are split; BEiT's block masks of one half by default, :class:`UniformMasking` for small sets.
        tokenizer: makes the tokenizer from the side of a patch in the half-size view and the number of channels.
        decoder_depth: blocks of the decoder.
        split: process both halves; without it only branch A, as other masked methods do.
        inpaint: the masked-modelling loss.
        match: the global contrastive loss.
        match_weight: its weight beside the inpainting loss.
        temperature: τ of InfoNCE.
        same_branch_negatives: SimCLR's negatives (see :func:`info_nce`).
        reposition_visible: see :class:`Decoder`.
    """

    def __init__(
        self,
        backbone: ViT,
        *,
        masking: Masking | None = None,
        tokenizer: Callable[[int, int], Tokenizer] = RandomProjection,
        decoder_depth: int = 2,
        split: bool = True,
        inpaint: bool = True,
        match: bool = True,
        match_weight: float = 1.0,
        temperature: float = 0.2,
        same_branch_negatives: bool = False,
        reposition_visible: bool = False,
    ) -> None:
        super().__init__(backbone)
        if not (inpaint or match):
            raise UserError("SplitMask has nothing to learn from: switch on inpaint, match, or both.")
        if match and not split:
            raise UserError(
                "Matching compares the two halves of an image: it needs split, so switch match off or split on."
            )
        config = backbone.config
        check_even_patches(config.patch_size)
        self.masking = masking or BlockMasking()
        self.masking.check(backbone.grid)
        self.split, self.inpaint, self.match = split, inpaint, match
        self.match_weight, self.temperature = match_weight, temperature
        self.same_branch_negatives = same_branch_negatives
        self.held_out_loss = "inpaint" if inpaint else None
        self.least_batch = 2 if match else 1
        self.decoder = Decoder(
            backbone.grid,
            backbone.embed_dim,
            num_heads=config.num_heads or 1,
            depth=decoder_depth,
            positions=config.positions,
            reposition_visible=reposition_visible,
        )
        if inpaint:
            self.tokenizer = tokenizer(config.patch_size // 2, config.in_chans)
            self.head = WordHead(backbone.embed_dim, self.tokenizer.vocabulary)

    @property
    def tokenizer_to_fit(self) -> Tokenizer | None:
        return self.tokenizer if self.inpaint else None

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        images = batch["images"]
        keep_a, keep_b = self.masking.split(len(images), self.backbone.grid, generator)
        keeps = [keep.to(images.device) for keep in ((keep_a, keep_b) if self.split else (keep_a,))]
        decoded = self.decode(images, keeps)
        losses: dict[str, Tensor] = {}
        loss = torch.zeros((), device=images.device)
        if self.inpaint:
            losses["inpaint"], losses["word_accuracy"] = self._inpaint(
                decoded, keeps, self.tokenizer(batch["token_view"])
            )
            loss = loss + losses["inpaint"]
        if self.match:
            a, b = (branch.mean(dim=1) for branch in decoded)  # observed and hallucinated patches alike
            losses["match"], losses["match_accuracy"] = info_nce(
                a, b, self.temperature, same_branch_negatives=self.same_branch_negatives
            )
            loss = loss + self.match_weight * losses["match"]
        return {"loss": loss, **losses}

    def decode(self, images: Tensor, keeps: list[Tensor]) -> list[Tensor]:
        """Each branch's decoded sequence: images (B, C, H, W), visible patches (B, n) a branch -> (B, N, D) a branch.

        Branches that see equally many patches go through encoder and decoder as one batch.
        """
        tokens = self.backbone.embed(images)
        if len({keep.shape[1] for keep in keeps}) == 1:
            visible = torch.cat([take(tokens, keep) for keep in keeps])  # (2B, n, D)
            decoded = self.decoder(self.backbone.encode(visible), torch.cat(keeps))  # (2B, N, D)
            return list(decoded.chunk(len(keeps)))
        return [self.decoder(self.backbone.encode(take(tokens, keep)), keep) for keep in keeps]

    def _inpaint(self, decoded: list[Tensor], keeps: list[Tensor], words: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the hidden patches of all branches together, and the accuracy."""
        hidden = [hidden_from(keep, words.shape[1]) for keep in keeps]
        states = torch.cat([take(branch, index).flatten(0, 1) for branch, index in zip(decoded, hidden, strict=True)])
        targets = torch.cat([words.gather(1, index).flatten() for index in hidden])  # (M,)
        return self.head.loss(states, targets)
