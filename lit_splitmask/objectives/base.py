"""The interface of a pre-training method: what training, validation, export and drawing need from it."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.pictures import Pictures, ToPixels
from lit_splitmask.tokenizers.base import Tokenizer


class Objective(nn.Module):
    """A pre-training method around a backbone.

    ``forward(batch, generator)`` takes

    - ``images`` (B, C, H, W) float, normalised;
    - ``crops``, if :attr:`num_crops` is more than 1: a list of such tensors, ``images`` first; the others are further crops of
      the same images, possibly of other sizes;
    - ``token_view`` (B, C, H/2, W/2) float in [0, 1], of the same crops as ``images``, if there is a tokenizer;
    - ``labels`` (B,) int64, if the images have labels; -1 for an image without one;
    - ``index`` (B,) int64 in [0, number of training images), in training;
    - ``features`` (B, N, D) float, if :attr:`takes_features` and they are already computed: the backbone's patch
      features of ``images``;
    - ``sources`` (B, B) float, if ``images`` are mixed already: row i holds the share of each image of the batch in image i, and
      sums to 1. Labels and indices are those of the images before mixing;
    - ``unmixed`` (B, C, H, W) float, if ``images`` are mixed already: the same images before mixing;
    - ``logits`` (B, classes) float, if :attr:`takes_features` and the backbone is a classifier: its logits of ``images``;

    and returns scalars by name, with ``"loss"`` among them; the others are measures, which are only logged. Masks come from
    ``generator``, a CPU generator in the same state on every process. Drop path and mixup use torch's own generator, which is
    seeded for each step and process.

    Attributes:
        backbone: The network that is trained.
        held_out_loss: Name of the loss that is meaningful on held-out images, or None.
        picture_file: Name of the file for :meth:`draw`'s picture, or None if there is nothing to draw.
        picture_legend: A text below the picture.
        num_crops: Number of crops that it needs of each image.
        least_batch: Smallest number of images in a batch, over all processes.
        least_per_process: Smallest number of images in one process's part of a batch.
        needs_labels: Whether all images must have labels.
        needs_index: Whether it needs each image's index among the training images; it has no losses on other images.
        takes_features: Whether it reads the patch features of whole images, so that joint training computes them once for both
            losses.
        deciding_signals: Names of the signals that choose its checkpoint, in order of preference; empty for the usual ones.
        progress: Share of the run that is done, in [0, 1); the trainer sets it before each step.

    Example:
        A method that predicts the brightness of an image:

        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import Objective
        >>> class Brightness(Objective):
        ...     def __init__(self, backbone):
        ...         super().__init__(backbone)
        ...         self.head = torch.nn.Linear(backbone.embed_dim, 1)
        ...     def forward(self, batch, generator):
        ...         predicted = self.head(self.backbone.pooled(batch["images"]))[:, 0]
        ...         return {"loss": (predicted - batch["images"].mean(dim=(1, 2, 3))).abs().mean()}
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> losses = Brightness(vit)({"images": torch.randn(4, 3, 32, 32)}, torch.Generator())
        >>> losses["loss"].shape
        torch.Size([])
    """

    held_out_loss: str | None = None
    picture_file: str | None = None
    picture_legend = ""
    num_crops = 1
    least_batch = 1
    least_per_process = 1
    needs_labels = False
    needs_index = False
    takes_features = False
    deciding_signals: tuple[str, ...] = ()
    progress = 0.0

    def __init__(self, backbone: ViT) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def kept(self) -> ViT:
        """The network that is exported and probed: the backbone, or a teacher if that is the better network."""
        return self.backbone

    @property
    def tokenizer_to_fit(self) -> Tokenizer | None:
        """The tokenizer, or None if the method has none."""
        return None

    def attach(self, num_classes: int, num_images: int) -> None:
        """Called before training, when the data are known.

        Args:
            num_classes: Number of classes, 0 without labels.
            num_images: Number of different training images, 0 if unknown.
        """

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def before_update(self) -> None:
        """Called after the backward pass of a step, before gradients are clipped and used."""

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with the share of the run that is done, in (0, 1]."""

    def draw(
        self, batch: dict[str, Any], generator: torch.Generator, *, num_images: int, to_pixels: ToPixels
    ) -> Pictures | None:
        """Draws what the method sees and predicts.

        Args:
            batch: The inputs of ``forward``.
            generator: Draws the masks.
            num_images: Number of images to draw, the first of the batch.
            to_pixels: Maps normalised images to pixels.

        Returns:
            Columns by title, (num_images, C, H, W) float in [0, 1] each; None if there is nothing to draw.
        """
        return None


def store_once(module: nn.Module, alias: str, original: str) -> None:
    """For a part that a module holds under two names, leaves one of the names out of its state dict.

    Args:
        module: The module.
        alias: The name to leave out, such as ``auxiliary.backbone``; nothing happens while there is no such part.
        original: The name that stays, such as ``backbone``.
    """

    def leave_out(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for name in [name for name in state if name.startswith(f"{prefix}{alias}.")]:
            del state[name]

    def fill_in(owner: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        if any(name.startswith(f"{alias}.") for name, _ in owner.named_parameters(remove_duplicate=False)):
            start = f"{prefix}{original}."
            shared = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            state |= {f"{prefix}{alias}.{name}": value for name, value in shared.items()}

    module.register_state_dict_post_hook(leave_out)
    module.register_load_state_dict_pre_hook(fill_in)


def check_in_unit_interval(**values: float) -> None:
    """Checks arguments, by name, that must be in [0, 1].

    Raises:
        UserError: One is outside.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value:g}; it must be in [0, 1].")


def check_sizes(**sizes: int) -> None:
    """Checks arguments, by name, that must be at least 1.

    Raises:
        UserError: One is smaller.
    """
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} is {size}; it must be at least 1.")


def check_even_patches(patch_size: int) -> None:
    """Checks that the half-size view can be cut into patches.

    Raises:
        UserError: The patch size is odd.
    """
    if patch_size % 2:
        raise UserError(f"Words are made from a half-size view, so the patch size must be even, not {patch_size}.")
