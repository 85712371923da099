"""Dense relative localisation (Liu et al., 2021, "Efficient Training of Visual Transformers with Small Datasets").

B images, N patches, D width, m pairs of patches.
"""

import torch
from torch import Tensor, nn

from lit_splitmask.distributed import local_rows, world_size
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT


class RelativeLocalisation(nn.Module):
    """From the features of two patches, how far are they apart? An auxiliary loss that needs no labels.

    Args:
        backbone: whose final patch features are looked at.
        num_pairs: m, drawn from each image with replacement.
        weight: λ at its peak; it rises in a line over ``ramp_share`` of the run, and falls in a line to 0 at its end.
        ramp_share: 20 of 100 epochs in the original, whose fall is drawn for 300 epochs and ends, after 100, at 0.71 of the peak.
        hidden_dim: of the MLP of three layers.
    """

    def __init__(
        self,
        backbone: ViT,
        *,
        num_pairs: int = 64,
        weight: float = 0.1,
        ramp_share: float = 0.2,
        hidden_dim: int = 512,
    ) -> None:
        super().__init__()
        if not 0 <= ramp_share < 1:
            raise UserError(f"ramp_share is {ramp_share}; it is a share of the run, from 0 up to (not including) 1.")
        self.grid, self.num_pairs, self.weight, self.ramp_share = backbone.grid, num_pairs, weight, ramp_share
        self.mlp = nn.Sequential(
            nn.Linear(2 * backbone.embed_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, 2),
        )

    def forward(self, features: Tensor, generator: torch.Generator, progress: float) -> tuple[Tensor, float]:
        """The loss and its weight at this time of the run.

        Args:
            features: (B, N, D), all patches in the order of the grid.
            generator: draws the pairs of the global batch, on the CPU.
            progress: the share of the run that is done.
        """
        num_images, num_patches = features.shape[:2]
        pairs = torch.randint(num_patches, (num_images * world_size(), self.num_pairs, 2), generator=generator)
        pairs = local_rows(pairs).to(features.device)
        rows = features.gather(1, pairs.flatten(1)[:, :, None].expand(-1, -1, features.shape[2]))  # (B, 2m, D)
        predicted = self.mlp(rows.unflatten(1, (self.num_pairs, 2)).flatten(2)).float()  # (B, m, 2)
        return (predicted - self.distances(pairs)).abs().mean(), self.weight_at(progress)

    def distances(self, pairs: Tensor) -> Tensor:
        """Absolute distances in rows and columns, as shares of the grid: (B, m, 2) int64 -> (B, m, 2) float in [0, 1)."""
        rows, columns = pairs // self.grid[1], pairs % self.grid[1]
        apart = [
            (rows[..., 0] - rows[..., 1]).abs() / self.grid[0],
            (columns[..., 0] - columns[..., 1]).abs() / self.grid[1],
        ]
        return torch.stack(apart, dim=-1)

    def weight_at(self, progress: float) -> float:
        """λ when a share ``progress`` of the run is done."""
        if progress < self.ramp_share:
            return self.weight * progress / self.ramp_share
        return self.weight * (1 - progress) / (1 - self.ramp_share)
