"""Supervised training (DeiT's recipe: Touvron et al., 2021) as pre-training, with or without relative localisation."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.mixing import Mixing
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective
from lit_splitmask.objectives.relative_localisation import RelativeLocalisation


class Supervised(Objective):
    """Classification of mixed images with soft targets.

    Its losses: ``loss``; ``classify`` (cross-entropy in nats), with an auxiliary loss ``localise``; ``accuracy`` in [0, 1].

    Args:
        backbone: what is trained; its features are pooled.
        mixup, cutmix: their alphas; 0 switches one off.
        label_smoothing: share of the target that is spread over all classes.
        auxiliary: makes Liu et al.'s loss of relative localisation from the backbone, such as the class
            :class:`RelativeLocalisation`.
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

    def attach(self, num_classes: int) -> None:
        """Makes the head.

        Raises:
            UserError: There are no labels.
        """
        if num_classes < 2:
            raise UserError(
                f"Supervised pre-training needs images of at least two classes, and these have {num_classes}: put each class's "
                "images into a folder of its own, or choose a method that needs no labels."
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
            losses["localise"], weight = self.auxiliary(features, generator, self.progress)
            loss = loss + weight * losses["localise"]
        return {"loss": loss, **losses, "accuracy": (logits.argmax(dim=1) == labels).float().mean()}
