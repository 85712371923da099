"""What a pre-training method must offer to be trained, validated, exported and drawn."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT
from lit_splitmask.tokenizers.base import Tokenizer


class Objective(nn.Module):
    """A pre-training method around a backbone.

    ``forward(batch, generator)`` takes

    - ``images`` (B, C, H, W) float, normalised;
    - ``crops``, a list of such tensors, ``images`` the first of them, where :attr:`num_crops` is more than 1: other crops of the
      same images, perhaps of other sizes;
    - ``token_view`` (B, C, H/2, W/2) float in [0, 1] of the same crops as ``images``, where there is a tokenizer;
    - ``labels`` (B,) int64, where the images have any;

    and returns scalars by name, with ``"loss"`` among them; those that are not to be differentiated are measures. Masks come from
    ``generator``, a CPU generator that is in the same state on every process; drop path and mixup from torch's own, which is
    seeded for each step and process.

    Attributes:
        backbone: what is trained.
        held_out_loss: the name of the loss that means something on held-out images, or ``None`` if none does.
        num_crops: how many crops of each image it needs at least.
        least_batch: how many images a batch must have at least, over all processes.
        least_share: how many of them each process must have.
        needs_labels: whether all images must have labels.
        progress: the share of the run that is done, in [0, 1); whoever trains sets it before each step.
    """

    held_out_loss: str | None = None
    num_crops = 1
    least_batch = 1
    least_share = 1
    needs_labels = False
    progress = 0.0

    def __init__(self, backbone: ViT) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def kept(self) -> ViT:
        """The network that is exported and probed; a teacher where it is the better one."""
        return self.backbone

    @property
    def tokenizer_to_fit(self) -> Tokenizer | None:
        """The tokenizer, if the method has one."""
        return None

    def attach(self, num_classes: int) -> None:
        """Called before training, when the number of classes is known; 0 without labels."""

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def before_update(self) -> None:
        """Called when the gradients of a step are there, before they are clipped and used."""

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with the share of the run that is done, in (0, 1]."""


def check_shares(**shares: float) -> None:
    """Checks arguments, by name, that must be in [0, 1].

    Raises:
        UserError: One is not.
    """
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"{name} is {share:g}; it must be in [0, 1].")


def check_sizes(**sizes: int) -> None:
    """Checks arguments, by name, that must be at least 1.

    Raises:
        UserError: One is not.
    """
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} is {size}; it must be at least 1.")


def check_even_patches(patch_size: int) -> None:
    """Checks that words can be made.

    Raises:
        UserError: The patch size is odd.
    """
    if patch_size % 2:
        raise UserError(f"Words are made from a half-size view, so the patch size must be even, not {patch_size}.")
