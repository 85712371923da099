"""Prediction heads."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.distributed import differentiable_sum, world_size
from lit_splitmask.losses import word_cross_entropy


class WordHead(nn.Linear):
    """A linear layer from D features to V visual words, and its cross-entropy in bounded memory.

    Args:
        embed_dim: D.
        vocabulary: V.
    """

    def __init__(self, embed_dim: int, vocabulary: int) -> None:
        super().__init__(embed_dim, vocabulary)
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def loss(self, states: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy of ``words`` (M,) int64 given ``states`` (M, D)."""
        return word_cross_entropy(states, self.weight, self.bias, words)

    @torch.no_grad()
    def predict(self, states: Tensor) -> Tensor:
        """The likeliest word of each state: (..., D) -> (...) int64."""
        return self(states).argmax(dim=-1)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm whose statistics are those of all processes' rows together, on a CPU as well as on a GPU.

    With W processes of B rows each it computes what one process with W·B rows would; gradients too, averaged as DDP does.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """(B, D) -> (B, D), the same B on every process."""
        if not self.training or world_size() == 1:
            return super().forward(rows)
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.float()
            count = len(rows) * world_size()
            mean = differentiable_sum(rows.sum(dim=0)) / count
            variance = differentiable_sum((rows - mean).square().sum(dim=0)) / count
            self._remember(mean.detach(), variance.detach() * count / (count - 1))
            normal = (rows - mean) * torch.rsqrt(variance + self.eps)
            return normal * self.weight + self.bias if self.affine else normal

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


def batch_norm_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers without bias, a batch norm and ReLU after each but the last, whose batch norm is not affine (MoCo v3).

    Args:
        widths: Of the input, the hidden layers and the output.
    """
    layers: list[nn.Module] = []
    for place, (width, following) in enumerate(pairwise(widths), start=1):
        layers.append(nn.Linear(width, following, bias=False))
        is_last = place == len(widths) - 1
        layers.append(BatchNorm(following, affine=not is_last))
        if not is_last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class PrototypeHead(nn.Module):
    """DINO's head: a GELU MLP to a bottleneck, L2-normalised, then scores against unit prototypes.

    Args:
        embed_dim: Of the input.
        hidden_dim: Of the two hidden layers.
        bottleneck_dim: Of what is normalised.
        num_prototypes: K.
        norm_last_layer: Prototypes stay unit vectors; else their lengths are learned, as the original suggests for ViT-S.
    """

    def __init__(
        self, embed_dim: int, *, hidden_dim: int, bottleneck_dim: int, num_prototypes: int, norm_last_layer: bool = True
    ) -> None:
        super().__init__()
        widths = [embed_dim, hidden_dim, hidden_dim, bottleneck_dim]
        linears = [nn.Linear(width, following) for width, following in pairwise(widths)]
        self.mlp = nn.Sequential(linears[0], nn.GELU(), linears[1], nn.GELU(), linears[2])
        for linear in linears:
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, bottleneck_dim))
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)
        self.lengths = nn.Parameter(torch.ones(num_prototypes, 1), requires_grad=not norm_last_layer)

    def forward(self, rows: Tensor, *, frozen: bool = False) -> Tensor:
        """(B, D) -> (B, K); while ``frozen``, the prototypes get a gradient of zero."""
        prototypes: Tensor = self.prototypes
        lengths: Tensor = self.lengths
        if frozen:  # the gradient is there, as DDP wants it, and is zero
            prototypes, lengths = prototypes.detach() + 0 * prototypes, lengths.detach() + 0 * lengths
        scores = F.linear(F.normalize(self.mlp(rows), dim=1), prototypes)
        return scores * (lengths[:, 0] / prototypes.norm(dim=1))  # cheaper than to normalise K prototypes
