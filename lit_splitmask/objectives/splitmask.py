"""SplitMask (Section 4): split, inpaint, match.

B images, N patches, n of them visible to a branch, M hidden ones in total, D width of the decoder, V words.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.losses import info_nce
from lit_splitmask.masking import BlockMasking, Masking, hidden_from, take
from lit_splitmask.models.decoder import Decoder
from lit_splitmask.models.heads import WordHead
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_even_patches
from lit_splitmask.objectives.pictures import Pictures, ToPixels, draw_words, show_only
from lit_splitmask.tokenizers.base import Tokenizer
from lit_splitmask.tokenizers.random_projection import RandomProjection


class SplitMask(Objective):
    """Two branches encode disjoint sets of patches; each inpaints what it does not see, and a global loss matches them.

    Its losses: ``loss``; ``inpaint`` (cross-entropy in nats) and ``word_accuracy``; ``match`` (InfoNCE in nats) and
    ``match_accuracy``; the accuracies are in [0, 1].

    Args:
        backbone: The encoder.
        masking: Splits the patches; by default BEiT's block masks of one half. Small sets use :class:`UniformMasking`.
        tokenizer: Makes the tokenizer from the side of a patch in the half-size view and the number of channels.
        decoder_depth: Number of blocks of the decoder.
        decoder_dim: Width of the decoder, a multiple of the width of the backbone's attention heads, which the decoder's heads
            share; a linear layer leads into it. None for the backbone's own width, without that layer, as in the paper.
        split: Whether there are two branches; without it there is only branch A, as in other masked methods.
        inpaint: Whether to use the masked-modelling loss.
        match: Whether to use the global contrastive loss.
        match_weight: Weight of the contrastive loss; that of the masked-modelling loss is 1.
        temperature: Temperature τ of InfoNCE.
        same_branch_negatives: Whether to use SimCLR's negatives (see :func:`info_nce`).
        reposition_visible: Whether the decoder adds positions to visible patches (see :class:`Decoder`).

    Raises:
        UserError: Both ``inpaint`` and ``match`` are off; ``match`` is on without ``split``; the patch size is odd; ``masking``
            cannot mask the backbone's grid, for two branches if ``split`` is on; or ``decoder_dim`` is not a multiple of the
            width of a head.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import SplitMask
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> batch = {"images": torch.randn(4, 3, 32, 32), "token_view": torch.rand(4, 3, 16, 16)}
        >>> list(SplitMask(vit)(batch, torch.Generator().manual_seed(0)))
        ['loss', 'inpaint', 'word_accuracy', 'match', 'match_accuracy']
    """

    picture_legend = (
        "Grey: patches that a half does not see; in its prediction, those that it sees. A word is drawn as the mean of the "
        "patches that have it."
    )

    def __init__(
        self,
        backbone: ViT,
        *,
        masking: Masking | None = None,
        tokenizer: Callable[[int, int], Tokenizer] = RandomProjection,
        decoder_depth: int = 2,
        decoder_dim: int | None = None,
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
                "Matching compares the two halves of an image, so it needs split: switch match off or split on."
            )
        config = backbone.config
        check_even_patches(config.patch_size)
        self.masking = masking or BlockMasking()
        check = self.masking.check_split if split else self.masking.check
        check(backbone.grid)
        self.split, self.inpaint, self.match = split, inpaint, match
        self.match_weight, self.temperature = match_weight, temperature
        self.same_branch_negatives = same_branch_negatives
        self.held_out_loss = "inpaint" if inpaint else None
        self.picture_file = "halves.png" if inpaint else None
        self.least_batch = 2 if match else 1
        width = backbone.embed_dim if decoder_dim is None else decoder_dim
        self.decoder_embed = nn.Identity() if decoder_dim is None else _into_decoder(backbone, decoder_dim)
        self.decoder = Decoder(
            backbone.grid,
            width,
            num_heads=width // _head_width(backbone),
            depth=decoder_depth,
            positions=config.positions,
            reposition_visible=reposition_visible,
        )
        if inpaint:
            self.tokenizer = tokenizer(config.patch_size // 2, config.in_chans)
            self.head = WordHead(width, self.tokenizer.vocabulary)

    @property
    def tokenizer_to_fit(self) -> Tokenizer | None:
        return self.tokenizer if self.inpaint else None

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        images = batch["images"]
        keeps = self._visible(images, generator)
        decoded = self.decode(images, keeps)
        losses: dict[str, Tensor] = {}
        loss = torch.zeros((), device=images.device)
        if self.inpaint:
            losses["inpaint"], losses["word_accuracy"] = self._inpaint(
                decoded, keeps, self.tokenizer(batch["token_view"])
            )
            loss = loss + losses["inpaint"]
        if self.match:
            a, b = (branch.mean(dim=1) for branch in decoded)  # over visible and hidden patches alike
            losses["match"], losses["match_accuracy"] = info_nce(
                a, b, self.temperature, same_branch_negatives=self.same_branch_negatives
            )
            loss = loss + self.match_weight * losses["match"]
        return {"loss": loss, **losses}

    def _visible(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Draws the visible patches of each branch, (B, n) int64 each."""
        if self.split:
            keeps = list(self.masking.split(len(images), self.backbone.grid, generator))
        else:
            keeps = [self.masking.visible(len(images), self.backbone.grid, generator)]
        return [keep.to(images.device) for keep in keeps]

    def decode(self, images: Tensor, keeps: list[Tensor]) -> list[Tensor]:
        """Decodes the full sequence of each branch: images (B, C, H, W), visible patches (B, n) each -> (B, N, D) each.

        Branches that see the same number of patches go through encoder and decoder as one batch.
        """
        tokens = self.backbone.embed(images)
        if len({keep.shape[1] for keep in keeps}) == 1:
            visible = torch.cat([take(tokens, keep) for keep in keeps])  # (2B, n, D)
            return list(self._decode(visible, torch.cat(keeps)).chunk(len(keeps)))
        return [self._decode(take(tokens, keep), keep) for keep in keeps]

    def _decode(self, visible: Tensor, keep: Tensor) -> Tensor:
        """Encodes embedded patches, then decodes the full sequence: (B, n, …) at ``keep`` (B, n) -> (B, N, D)."""
        return self.decoder(self.decoder_embed(self.backbone.encode(visible)), keep)

    def _inpaint(self, decoded: list[Tensor], keeps: list[Tensor], words: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and accuracy over the hidden patches of all branches together."""
        hidden = [hidden_from(keep, words.shape[1]) for keep in keeps]
        states = torch.cat([take(branch, index).flatten(0, 1) for branch, index in zip(decoded, hidden, strict=True)])
        targets = torch.cat([words.gather(1, index).flatten() for index in hidden])  # (M,)
        return self.head.loss(states, targets)

    def draw(
        self, batch: dict[str, Any], generator: torch.Generator, *, num_images: int, to_pixels: ToPixels
    ) -> Pictures | None:
        """Draws images, what each branch sees, true words, and each branch's predictions, only where it does not see the patch.

        Without ``inpaint`` there is nothing to draw.
        """
        if not self.inpaint:
            return None
        images, views = batch["images"][:num_images], batch["token_view"]
        keeps = self._visible(images, generator)
        words = self.tokenizer(views[:num_images])
        branches = list(zip("AB", keeps, self.decode(images, keeps), strict=False))
        pixels = to_pixels(images)
        columns = {"image": pixels}
        for name, keep, _ in branches:
            columns[f"{name} sees"] = show_only(pixels, keep, self.backbone.config.patch_size)
        columns["true words"] = draw_words(self.tokenizer, views, words)
        for name, keep, decoded in branches:
            hidden = hidden_from(keep, words.shape[1])
            predicted = words.scatter(1, hidden, self.head.predict(take(decoded, hidden)))
            drawn = draw_words(self.tokenizer, views, predicted)
            columns[f"{name} predicts"] = show_only(drawn, hidden, self.backbone.config.patch_size)
        return columns


def _head_width(backbone: ViT) -> int:
    """Width of one attention head of the backbone."""
    return backbone.embed_dim // (backbone.config.num_heads or 1)


def _into_decoder(backbone: ViT, decoder_dim: int) -> nn.Linear:
    """The layer from the backbone's width to the decoder's, initialised as MAE's.

    Raises:
        UserError: ``decoder_dim`` is not a positive multiple of the width of the backbone's heads.
    """
    head = _head_width(backbone)
    if decoder_dim < 1 or decoder_dim % head:
        raise UserError(
            f"decoder_dim={decoder_dim} cannot be divided into attention heads as wide as the backbone's: choose a multiple "
            f"of {head}, or leave it out for the backbone's width of {backbone.embed_dim}."
        )
    layer = nn.Linear(backbone.embed_dim, decoder_dim)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
