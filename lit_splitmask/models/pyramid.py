"""Feature maps of four strides from a ViT of one stride, for detection and segmentation (XCiT's adapter).

B images, D width, P patch size in pixels.
"""

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT


class Pyramid(nn.Module):
    """Outputs of blocks at 1/3, 1/2, 2/3 and the end of the depth, brought to strides P/4, P/2, P and 2P.

    By two transposed convolutions, by one, by none, and by max-pooling, as in XCiT. Between the first two stands a norm over
    channels in place of XCiT's synchronised batch norm, so that images of a batch do not depend on each other.

    Args:
        vit: The backbone, of at least four blocks.

    Attributes:
        strides: Of the maps, in pixels; a patch size below 4 gives its own stride more than once.

    Raises:
        UserError: The backbone has fewer than four blocks, or an odd patch size.
    """

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        depth, width, patch = len(vit.blocks), vit.embed_dim, vit.config.patch_size
        if depth < 4 or patch % 4:
            raise UserError(
                f"A pyramid needs a backbone of at least four blocks and a patch size that 4 divides, not {depth} blocks and "
                f"patches of {patch}."
            )
        self.vit = vit
        self.taps = [round(depth * share) - 1 for share in (1 / 3, 1 / 2, 2 / 3, 1)]
        for level in (2, 1, 0):  # of a depth of 5, two would fall on one block
            self.taps[level] = min(self.taps[level], self.taps[level + 1] - 1)
        self.strides = [patch // 4, patch // 2, patch, 2 * patch]
        self.scales = nn.ModuleList(
            [
                nn.Sequential(_double(width), LayerNorm2d(width), nn.GELU(), _double(width)),
                _double(width),
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) float, normalised, H and W multiples of P -> four maps (B, D, H/stride, W/stride)."""
        maps = self.vit.block_maps(images, self.taps)
        return [scale(one) for scale, one in zip(self.scales, maps, strict=True)]


def _double(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
