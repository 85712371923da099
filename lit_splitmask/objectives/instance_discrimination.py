"""Parametric instance discrimination (IDMM; Cao, Yu and Wu, 2022): every training image is a class of its own.

B images, N patches, D width, K training images.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.losses import mixture_cross_entropy
from lit_splitmask.mixing import Mixing
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_sizes


class InstanceDiscrimination(Objective):
    """Classification of mixed crops among all training images, by a linear head with one row per image.

    There is no teacher, and images are not compared with each other. Crops are mixed and targets smoothed in training only.
    Memory holds a chunk of the B·K logits at a time. Its losses: ``loss`` (cross-entropy in nats), the mean over the crops, and
    ``accuracy`` in [0, 1]: the share that the image with the largest logit has in the mixed crop.

    Args:
        backbone: The network that is trained; its patch features are pooled.
        crops: Number of crops of each image; they are mixed separately.
        mixup, cutmix: Alphas of Mixup and CutMix; 0 switches one off.
        label_smoothing: Share of the target that is spread over all training images.

    Raises:
        UserError: ``crops`` is less than 1.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import InstanceDiscrimination
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> method = InstanceDiscrimination(vit)
        >>> method.attach(num_classes=0, num_images=100)
        >>> batch = {"images": torch.randn(4, 3, 32, 32), "index": torch.tensor([7, 3, 99, 0])}
        >>> list(method(batch, torch.Generator()))
        ['loss', 'accuracy']
    """

    takes_features = True
    needs_index = True

    def __init__(
        self,
        backbone: ViT,
        *,
        crops: int = 1,
        mixup: float = 0.0,
        cutmix: float = 1.0,
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__(backbone)
        check_sizes(crops=crops)
        self.num_crops = crops
        self._mixing = {"mixup": mixup, "cutmix": cutmix, "label_smoothing": label_smoothing}
        self.mixing: Mixing | None = None
        self.head: nn.Linear | None = None

    def attach(self, num_classes: int, num_images: int) -> None:
        """Makes the head.

        Raises:
            UserError: The number of training images is unknown, less than two, or not that of an earlier call; ``mixup`` or
                ``cutmix`` is negative; or ``label_smoothing`` is outside [0, 1).
        """
        if num_images == 0:
            raise UserError(
                "InstanceDiscrimination makes a class of each training image, but their number is unknown: use a datamodule of "
                "this project, or one that has num_train_images and puts each image's index into its batches."
            )
        if num_images < 2:
            raise UserError(
                f"InstanceDiscrimination tells training images apart, so it needs at least two, but there is "
                f"{num_images}: add images, or use a method that looks at single images, such as MAE."
            )
        if self.head is None:
            self.head = nn.Linear(self.backbone.embed_dim, num_images)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
            self.mixing = Mixing(num_images, **self._mixing)
        if self.head.out_features != num_images:
            raise UserError(
                f"This InstanceDiscrimination has learned {self.head.out_features} training images, but now there are "
                f"{num_images}: make a new one. Its backbone can be kept."
            )

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        assert self.head is not None, "attach() makes the head"
        assert self.mixing is not None
        if "index" not in batch:
            raise UserError(
                "InstanceDiscrimination needs to know which training image is which, but the batches have no index: use a "
                "datamodule of this project, or one that puts each image's index into its batches."
            )
        index = batch["index"]
        pooled, shares = self._pooled(batch["images"], batch.get("features"), batch.get("sources"))
        for crop in batch["crops"][1 : self.num_crops] if self.num_crops > 1 else []:
            of_crop = self._pooled(crop)
            pooled, shares = torch.cat([pooled, of_crop[0]]), torch.cat([shares, of_crop[1]])
        assert 0 <= index.min() <= index.max() < self.head.out_features, "indices are those of training images"
        smoothing = self.mixing.label_smoothing if self.training else 0.0
        loss, accuracy = mixture_cross_entropy(
            pooled, self.head.weight, self.head.bias, index, shares, smoothing=smoothing
        )
        return {"loss": loss, "accuracy": accuracy}

    def _pooled(
        self, crop: Tensor, features: Tensor | None = None, sources: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Descriptors of a crop's images, mixed unless they are already mixed or can no longer be.

        Args:
            crop: (B, C, H, W) float, normalised.
            features: (B, N, D) float, the patch features of ``crop`` if they are known.
            sources: (B, B) float, the share of each image in each image of ``crop`` if that is mixed already.

        Returns:
            (B, D) float, and the shares (B, B) float.
        """
        assert self.mixing is not None
        if sources is None:
            if self.training and features is None:
                crop, sources = self.mixing.mix(crop)
            else:
                sources = torch.eye(len(crop), device=crop.device)
        if features is None:
            features = self.backbone.features(crop)
        return features.mean(dim=1), sources
