"""Mixup, CutMix and label smoothing: soft targets for supervised training.

B images, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from lit_splitmask.errors import UserError


class Mixing:
    """Mixes each image of a batch with another one, by Mixup or CutMix, chosen at random for each batch.

    Args:
        num_classes: K.
        mixup, cutmix: Alphas of the Beta distributions, at least 0; 0 switches that one off.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).

    Raises:
        UserError: ``label_smoothing`` is outside [0, 1), or an alpha is negative.
    """

    def __init__(self, num_classes: int, *, mixup: float, cutmix: float, label_smoothing: float) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing:g}; it must be at least 0 and less than 1.")
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if alpha < 0:
                raise UserError(f"{name} is {alpha:g}; it must be at least 0 (0 switches it off).")
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        alphas: list[tuple[type[v2.MixUp] | type[v2.CutMix], float]] = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        self._choices = [mix(alpha=alpha, num_classes=num_classes) for mix, alpha in alphas if alpha > 0]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a batch, with random numbers from torch's global generator.

        Args:
            images: (B, C, H, W) float.
            labels: (B,) int64 in [0, K).

        Returns:
            The mixed images, and soft targets (B, K) float that sum to 1.
        """
        if self._choices:
            # v2.MixUp and v2.CutMix mix neighbours, and repeated augmentation puts copies of an image side by side.
            order = torch.randperm(len(images))
            choice = int(torch.randint(len(self._choices), ()))
            mixed, soft = self._choices[choice](images[order], labels[order])
            original_order = order.argsort()
            images, targets = mixed[original_order], soft[original_order]
        else:
            targets = F.one_hot(labels, self.num_classes).to(images.dtype)
        return images, targets * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
