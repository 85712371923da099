"""Dense relative localisation (Liu et al., 2021, "Efficient Training of Visual Transformers with Small Datasets").

B images, N patches, D width, m pairs of patches.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_splitmask.distributed import local_rows, world_size
from lit_splitmask.errors import UserError
from lit_splitmask.masking import take
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective


class RelativeLocalisation(Objective):
    """Predicts the distance of two patches from their features; meant to be trained alongside a classification loss.

    Its losses: ``localise``, the mean absolute error of the distances; ``loss``, which is ``localise`` times its weight
    at this point of the run.

    Args:
        backbone: The network whose final patch features it takes.
        num_pairs: Number of pairs m per image, drawn with replacement.
        weight: Peak weight λ of the loss; it rises linearly over ``ramp_share`` of the run, then falls linearly to 0 at the end.
        ramp_share: Share of the run in [0, 1); 20 of 100 epochs in the original, whose decay is planned for 300 epochs, so that
            the weight after 100 is 0.71 of the peak.
        hidden_dim: Width of the MLP of three layers.
        unit: Unit of the distances: ``grid``, shares of the grid's sides, as in the paper; or ``patch``, numbers of patches, as
            in its published code. Distances and loss are then 14 times larger on a grid of 14×14: the same ``weight`` means more.

    Raises:
        UserError: ``ramp_share`` is outside [0, 1), or ``unit`` is unknown.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import RelativeLocalisation
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> auxiliary = RelativeLocalisation(vit)
        >>> auxiliary.progress = 0.1  # half-way up to the peak of 0.1
        >>> losses = auxiliary({"images": torch.randn(4, 3, 32, 32)}, torch.Generator().manual_seed(0))
        >>> list(losses), round(float(losses["loss"] / losses["localise"]), 3)
        (['loss', 'localise'], 0.05)
    """

    takes_features = True

    def __init__(
        self,
        backbone: ViT,
        *,
        num_pairs: int = 64,
        weight: float = 0.1,
        ramp_share: float = 0.2,
        hidden_dim: int = 512,
        unit: Literal["grid", "patch"] = "grid",
    ) -> None:
        super().__init__(backbone)
        if unit not in ("grid", "patch"):
            raise UserError(f"unit is {unit!r}; it must be grid (the paper) or patch (its published code).")
        self.unit = unit
        if not 0 <= ramp_share < 1:
            raise UserError(f"ramp_share is {ramp_share}; it must be at least 0 and less than 1.")
        self.grid, self.num_pairs, self.weight, self.ramp_share = backbone.grid, num_pairs, weight, ramp_share
        self.mlp = nn.Sequential(
            nn.Linear(2 * backbone.embed_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, 2),
        )

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        features = batch["features"] if "features" in batch else self.backbone.features(batch["images"])
        num_images, num_patches = features.shape[:2]
        pairs = torch.randint(num_patches, (num_images * world_size(), self.num_pairs, 2), generator=generator)
        pairs = local_rows(pairs).to(features.device)
        rows = take(features, pairs.flatten(1))  # (B, 2m, D)
        predicted = self.mlp(rows.unflatten(1, (self.num_pairs, 2)).flatten(2)).float()  # (B, m, 2)
        localise = (predicted - self.distances(pairs)).abs().mean()
        return {"loss": self.weight_at(self.progress) * localise, "localise": localise}

    def distances(self, pairs: Tensor) -> Tensor:
        """Absolute distances in rows and columns, in ``unit``s: (B, m, 2) int64 -> (B, m, 2) float, in [0, 1) for ``grid``."""
        rows, columns = pairs // self.grid[1], pairs % self.grid[1]
        height, width = self.grid if self.unit == "grid" else (1, 1)
        per_axis = [
            (rows[..., 0] - rows[..., 1]).abs() / height,
            (columns[..., 0] - columns[..., 1]).abs() / width,
        ]
        return torch.stack(per_axis, dim=-1)

    def weight_at(self, progress: float) -> float:
        """Weight λ when a share ``progress`` of the run is done."""
        if progress < self.ramp_share:
            return self.weight * progress / self.ramp_share
        return self.weight * (1 - progress) / (1 - self.ramp_share)
