"""What a pre-training method must offer to be trained, validated, exported and drawn."""

import torch
from torch import Tensor, nn

from lit_splitmask.models.vit import ViT
from lit_splitmask.tokenizers.base import Tokenizer


class Objective(nn.Module):
    """A pre-training method around a backbone.

    ``forward(batch, generator)`` takes ``images`` (B, C, H, W) float, normalised, and ``token_view`` (B, C, H/2, W/2)
    float in [0, 1] of the same crops, and returns scalars by name, with ``"loss"`` among them; those that are not to
    be differentiated are measures. Everything random comes from ``generator``, a CPU generator that is in the same
    state on every process.

    Attributes:
        backbone: what is kept after pre-training.
        held_out_loss: the name of the loss that means something on held-out images, or ``None`` if none does.
    """

    held_out_loss: str | None = None

    def __init__(self, backbone: ViT) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def tokenizer_to_fit(self) -> Tokenizer | None:
        """The tokenizer, if the method has one."""
        return None

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with the share of the run that is done, in (0, 1]."""
