"""Mixup, CutMix and label smoothing: soft targets for supervised training."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from lit_splitmask.errors import UserError


class Mixing:
    """Mixes the images of a batch with each other, by Mixup or CutMix at random.

    Args:
        num_classes: of the labels.
        mixup, cutmix: alphas; 0 switches one off.
        label_smoothing: share of the target that is spread over all classes.

    Raises:
        UserError: One of these is out of its range.
    """

    def __init__(self, num_classes: int, *, mixup: float, cutmix: float, label_smoothing: float) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing:g}; it must be at least 0 and less than 1.")
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if alpha < 0:
                raise UserError(f"{name} is {alpha:g}; it must be at least 0, which switches it off.")
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        alphas: list[tuple[type[v2.MixUp] | type[v2.CutMix], float]] = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        self._choices = [mix(alpha=alpha, num_classes=num_classes) for mix, alpha in alphas if alpha > 0]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes, with torch's own random numbers.

        Args:
            images: (B, C, H, W) float.
            labels: (B,) int64.

        Returns:
            The mixed images and soft targets (B, classes) that sum to 1.
        """
        if self._choices:
            # In another order, for each is mixed with its neighbour, and repeated augmentation puts copies side by side.
            order = torch.randperm(len(images))
            choice = int(torch.randint(len(self._choices), ()))
            mixed, soft = self._choices[choice](images[order], labels[order])
            back = order.argsort()
            images, targets = mixed[back], soft[back]
        else:
            targets = F.one_hot(labels, self.num_classes).to(images.dtype)
        return images, targets * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
