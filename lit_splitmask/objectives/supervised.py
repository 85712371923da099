"""Supervised training (DeiT's recipe: Touvron et al., 2021) as pre-training, with or without relative localisation."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.mixing import Mixing
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, store_once
from lit_splitmask.objectives.relative_localisation import RelativeLocalisation


class Supervised(Objective):
    """Classification of mixed images with soft targets.

    Images are mixed and labels smoothed in training only. Its losses: ``loss``; ``classify`` (cross-entropy in nats);
    ``localise``, with an auxiliary loss; ``accuracy`` in [0, 1].

    Args:
        backbone: The network that is trained; its patch features are pooled.
        mixup, cutmix: Alphas of Mixup and CutMix; 0 switches one off.
        label_smoothing: Share of the target that is spread over all classes.
        auxiliary: Makes the loss of relative localisation from the backbone, such as the class :class:`RelativeLocalisation`.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import RelativeLocalisation, Supervised
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> supervised = Supervised(vit, auxiliary=RelativeLocalisation)
        >>> supervised.attach(num_classes=2, num_images=4)
        >>> batch = {"images": torch.randn(4, 3, 32, 32), "labels": torch.tensor([0, 1, 1, 0])}
        >>> list(supervised(batch, torch.Generator().manual_seed(0)))
        ['loss', 'classify', 'localise', 'accuracy']
    """

    needs_labels = True

    def __init__(
        self,
        backbone: ViT,
        *,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        label_smoothing: float = 0.1,
        auxiliary: Callable[[ViT], RelativeLocalisation] | None = None,
    ) -> None:
        super().__init__(backbone)
        self._mixing = {"mixup": mixup, "cutmix": cutmix, "label_smoothing": label_smoothing}
        self.mixing: Mixing | None = None
        self.head: nn.Linear | None = None
        self.auxiliary = None if auxiliary is None else auxiliary(backbone)
        store_once(self, "auxiliary.backbone", "backbone")

    def attach(self, num_classes: int, num_images: int) -> None:
        """Makes the head.

        Raises:
            UserError: There are fewer than two classes; ``mixup`` or ``cutmix`` is negative; or ``label_smoothing`` is outside
                [0, 1).
        """
        if num_classes < 2:
            raise UserError(
                f"Supervised pre-training needs images of at least two classes, but these have {num_classes}: put the images of "
                "each class into a separate folder, or choose a method without labels."
            )
        if self.head is None:
            self.head = nn.Linear(self.backbone.embed_dim, num_classes)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
            self.mixing = Mixing(num_classes, **self._mixing)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        assert self.head is not None, "attach() makes the head"
        assert self.mixing is not None
        images, labels = batch["images"], batch["labels"]
        targets: Tensor = labels
        if self.training:
            images, targets = self.mixing(images, labels)
        features = self.backbone.features(images)
        logits = self.head(features.mean(dim=1)).float()
        losses = {"classify": F.cross_entropy(logits, targets)}
        loss = losses["classify"]
        if self.auxiliary is not None:
            self.auxiliary.progress = self.progress
            auxiliary = self.auxiliary({"images": images, "features": features}, generator)
            losses["localise"] = auxiliary["localise"]
            loss = loss + auxiliary["loss"]
        return {"loss": loss, **losses, "accuracy": (logits.argmax(dim=1) == labels).float().mean()}
