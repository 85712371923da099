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

    Attributes:
        class_weights: (K,) float, the factor on the loss of an image by its class; None for 1. Each share of a mixed image has
            the weight of its own class, and smoothing does not change it.

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
        self.class_weights: Tensor | None = None
        mixes: list[tuple[type[v2.MixUp] | type[v2.CutMix], float]] = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        self._alphas = [(mix, alpha) for mix, alpha in mixes if alpha > 0]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a batch, with random numbers from torch's global generator.

        Args:
            images: (B, C, H, W) float.
            labels: (B,) int64 in [0, K).

        Returns:
            The mixed images, and what :meth:`targets` returns.
        """
        images, sources = self.mix(images)
        return images, self.targets(labels, sources)

    def mix(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes images without their labels.

        Args:
            images: (B, C, H, W) float.

        Returns:
            The mixed images, and (B, B) float: the share of each image in each mixed one, in rows that sum to 1.
        """
        if not self._alphas:
            return images, torch.eye(len(images), dtype=images.dtype, device=images.device)
        # v2.MixUp and v2.CutMix mix neighbours, and repeated augmentation puts copies of an image side by side.
        order = torch.randperm(len(images))
        mix, alpha = self._alphas[int(torch.randint(len(self._alphas), ()))]
        mixed, sources = mix(alpha=alpha, num_classes=len(images))(images[order], order.to(images.device))
        original_order = order.argsort()
        return mixed[original_order], sources[original_order]

    def mix_apart(self, images: Tensor, is_first: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes two groups of images, each within itself.

        Args:
            images: (B, C, H, W) float.
            is_first: (B,) bool, whether an image belongs to the first group.

        Returns:
            What :meth:`mix` returns, for the whole batch in its order; no image has a share in one of the other group.
        """
        if bool(is_first.all()):
            return self.mix(images)
        mixed, sources = torch.empty_like(images), images.new_zeros(len(images), len(images))
        for group in (is_first, ~is_first):
            rows = group.nonzero()[:, 0]
            if len(rows):
                mixed[rows], sources[rows[:, None], rows] = self.mix(images[rows])
        return mixed, sources

    def targets(self, labels: Tensor, sources: Tensor) -> Tensor:
        """Soft targets of mixed images.

        Args:
            labels: (B,) int64 in [0, K), of the images before mixing; or (B, K) float of 0 and 1, any number of classes each.
            sources: (B, B) float, as returned by :meth:`mix`.

        Returns:
            (B, K) float, in rows that sum to 1, or to the images' weights with ``class_weights``. With several labels, each entry
            is smoothed towards 1/2, and not weighted.
        """
        if labels.ndim == 2:
            return sources @ labels.to(sources.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        classes = F.one_hot(labels, self.num_classes).to(sources.dtype)
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(sources)
            classes = classes * self.class_weights
        mixed = sources @ classes
        weight = 1.0 if self.class_weights is None else mixed.sum(dim=1, keepdim=True)
        return mixed * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes * weight
