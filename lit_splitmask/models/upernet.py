"""UperNet (Xiao et al., 2018) over the pyramid of a ViT: a class for each pixel.

B images, D width of the ViT, C channels of the head, K classes, P patch size in pixels.
"""

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.models.pyramid import Pyramid

POOLS = (1, 2, 3, 6)
AUXILIARY_CHANNELS = 256
AUXILIARY_LEVEL = 2


class UperNet(nn.Module):
    """Pyramid pooling on the last map, a feature pyramid from it down to the first, their fusion, and a classifier.

    Beside it an auxiliary FCN head on the third map, for the loss alone. Norms are over channels (LayerNorm2d), as in
    :class:`Pyramid`, where the reference has synchronised batch norm: crops of a batch, windows of an image and numbers of
    processes then cannot change each other's result, single images train as well, and the pooled map of one pixel has a norm.

    The backbone's final norm takes no part and is frozen, as all processes must have gradients of the same parameters.

    Args:
        pyramid: Gives the four maps.
        num_classes: K.
        channels: C; 768 in BEiT's recipe for ViT-B, 512 in XCiT's.
        dropout: Of whole channels before both classifiers.

    Raises:
        UserError: There are no channels, or the dropout is no share.
    """

    def __init__(self, pyramid: Pyramid, num_classes: int, *, channels: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        if channels < 1 or not 0 <= dropout < 1:
            raise UserError(
                f"A segmentation head needs at least one channel and a dropout in [0, 1), not {channels} and {dropout:g}."
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
            images: (B, channels, H, W) float, normalised; H and W multiples of P.

        Returns:
            (B, K, H, W).
        """
        return _resize(self.classifier(self._fused(self.pyramid(images))), images)

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of :meth:`forward` and those of the auxiliary head, of the same shape."""
        maps = self.pyramid(images)
        logits, auxiliary = self.classifier(self._fused(maps)), self.auxiliary(maps[AUXILIARY_LEVEL])
        return _resize(logits, images), _resize(auxiliary, images)

    def _fused(self, maps: list[Tensor]) -> Tensor:
        """(B, C, H, W) of the first map's size."""
        last = maps[-1]
        pools = [
            _resize(conv(F.adaptive_avg_pool2d(last, size)), last)
            for size, conv in zip(POOLS, self.pooled, strict=True)
        ]
        levels = [self.bottleneck(torch.cat([last, *pools], dim=1))]
        for lateral, one in zip(reversed(self.laterals), reversed(maps[:-1]), strict=True):
            levels.insert(0, lateral(one) + _resize(levels[0], one))
        smoothed = [conv(level) for conv, level in zip(self.smooth, levels[:-1], strict=True)] + levels[-1:]
        return self.fusion(torch.cat([_resize(level, smoothed[0]) for level in smoothed], dim=1))


def _conv(in_channels: int, channels: int, size: int) -> nn.Sequential:
    """A convolution that keeps the size of the map, a norm over channels, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, size, padding=size // 2, bias=False), LayerNorm2d(channels), nn.ReLU()
    )


def _resize(values: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of ``like``."""
    return F.interpolate(values, like.shape[-2:], mode="bilinear", align_corners=False)
