"""UperNet (Xiao et al., 2018) on the pyramid of a ViT: logits for every pixel.

B images, D width of the ViT, C channels of the head, K classes, P patch size in pixels.
"""

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.models.pyramid import Pyramid

POOLS = (1, 2, 3, 6)
"""Sides of the pooled maps in cells."""

AUXILIARY_CHANNELS = 256
AUXILIARY_LEVEL = 2
"""Index of the pyramid's map that the auxiliary head uses."""


class UperNet(nn.Module):
    """Pyramid pooling on the last map, a feature pyramid from there to the first map, fusion of all maps, and a classifier.

    An auxiliary FCN head on the third map adds to the training loss only. Norms are over channels (LayerNorm2d), as in
    :class:`Pyramid`; the reference has synchronised batch norm. So the result for a crop or window does not depend on others in
    its batch or on the number of processes, a batch of one image trains, and the pooled map of a single pixel can be normalised.

    The backbone's final norm is unused and frozen, since DDP needs a gradient of every trainable parameter.

    Args:
        pyramid: Backbone with four maps.
        num_classes: K.
        channels: C; 768 in BEiT's recipe for ViT-B, 512 in XCiT's.
        dropout: Probability of dropping a channel before each classifier, in [0, 1).

    Raises:
        UserError: ``channels`` is below 1, or ``dropout`` is outside [0, 1).
    """

    def __init__(self, pyramid: Pyramid, num_classes: int, *, channels: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        if channels < 1 or not 0 <= dropout < 1:
            raise UserError(
                f"A segmentation head needs at least one channel and a dropout in [0, 1), not channels={channels} and "
                f"dropout={dropout:g}: change model.channels or model.dropout."
            )
        self.pyramid, self.num_classes = pyramid, num_classes
        pyramid.vit.norm.requires_grad_(False)
        width = pyramid.vit.embed_dim
        self.pooled = nn.ModuleList([_conv(width, channels, 1) for _ in POOLS])
        self.bottleneck = _conv(width + len(POOLS) * channels, channels, 3)
        self.laterals = nn.ModuleList([_conv(width, channels, 1) for _ in range(3)])
        self.smooth = nn.ModuleList([_conv(channels, channels, 3) for _ in range(3)])
        self.fusion = _conv(4 * channels, channels, 3)
        self.classifier = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))
        self.auxiliary = nn.Sequential(
            _conv(width, AUXILIARY_CHANNELS, 3), nn.Dropout2d(dropout), nn.Conv2d(AUXILIARY_CHANNELS, num_classes, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of every pixel.

        Args:
            images: (B, in_chans, H, W) float, normalised; H and W multiples of P.

        Returns:
            (B, K, H, W) float.
        """
        return _resize(self.classifier(self._fused(self.pyramid(images))), images)

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of :meth:`forward` and of the auxiliary head, each (B, K, H, W) float."""
        maps = self.pyramid(images)
        logits, auxiliary = self.classifier(self._fused(maps)), self.auxiliary(maps[AUXILIARY_LEVEL])
        return _resize(logits, images), _resize(auxiliary, images)

    def _fused(self, maps: list[Tensor]) -> Tensor:
        """Fuses the four maps into one of the first map's size, (B, C, H, W)."""
        last = maps[-1]
        pools = [
            _resize(conv(F.adaptive_avg_pool2d(last, size)), last)
            for size, conv in zip(POOLS, self.pooled, strict=True)
        ]
        levels = [self.bottleneck(torch.cat([last, *pools], dim=1))]
        for lateral, finer in zip(reversed(self.laterals), reversed(maps[:-1]), strict=True):
            levels.insert(0, lateral(finer) + _resize(levels[0], finer))
        smoothed = [conv(level) for conv, level in zip(self.smooth, levels[:-1], strict=True)] + levels[-1:]
        return self.fusion(torch.cat([_resize(level, smoothed[0]) for level in smoothed], dim=1))


def _conv(in_channels: int, channels: int, size: int) -> nn.Sequential:
    """A convolution that keeps the size of the map, a norm over channels, and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, size, padding=size // 2, bias=False), LayerNorm2d(channels), nn.ReLU()
    )


def _resize(values: Tensor, like: Tensor) -> Tensor:
    """Resizes bilinearly to the height and width of ``like``."""
    return F.interpolate(values, like.shape[-2:], mode="bilinear", align_corners=False)
