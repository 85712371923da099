"""Feature maps with four strides from a ViT, which has one, for detection and segmentation (XCiT's adapter).

B images, D width, P patch size in pixels.
"""

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT


class Pyramid(nn.Module):
    """Outputs of the blocks at 1/3, 1/2, 2/3 and the end of the depth, resized to strides P/4, P/2, P and 2P.

    As in XCiT, the maps are resized by two transposed convolutions, one, none, and max-pooling. A norm over channels replaces
    XCiT's synchronised batch norm between the first two, so that images of a batch do not depend on each other.

    Args:
        vit: The backbone, with at least four blocks and a P divisible by 4.

    Attributes:
        taps: Indices of the blocks whose outputs are used, from 0.
        strides: Strides of the maps in pixels, from fine to coarse.

    Raises:
        UserError: The backbone has fewer than four blocks, or P is not divisible by 4.
    """

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        depth, width, patch = len(vit.blocks), vit.embed_dim, vit.config.patch_size
        if depth < 4 or patch % 4:
            raise UserError(
                f"A pyramid needs a backbone with at least four blocks and a patch size divisible by 4, not {depth} blocks and "
                f"patches of {patch} px: change the backbone."
            )
        self.vit = vit
        self.taps = [round(depth * share) - 1 for share in (1 / 3, 1 / 2, 2 / 3, 1)]
        for level in (2, 1, 0):  # at a depth of 5, two levels would use the same block
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
        """The four maps, from fine to coarse.

        Args:
            images: (B, C, H, W) float, normalised; H and W multiples of P.

        Returns:
            For each stride (B, D, H/stride, W/stride) float; H/2P and W/2P are rounded up.
        """
        maps = self.vit.block_maps(images, self.taps)
        return [scale(block_map) for scale, block_map in zip(self.scales, maps, strict=True)]


def _double(width: int) -> nn.ConvTranspose2d:
    """Doubles the height and width of a map."""
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
