"""Prediction heads.

B rows per process, W processes, D features, V words, K prototypes.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.distributed import differentiable_sum, world_size
from lit_splitmask.losses import word_cross_entropy


class WordHead(nn.Linear):
    """A linear layer from features to visual words, with a cross-entropy in bounded memory.

    Args:
        embed_dim: D.
        vocabulary: V.
    """

    def __init__(self, embed_dim: int, vocabulary: int) -> None:
        super().__init__(embed_dim, vocabulary)
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def loss(self, states: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy, as in :func:`~lit_splitmask.losses.word_cross_entropy`.

        Args:
            states: (M, D) float.
            words: (M,) int64 in [0, V).
        """
        return word_cross_entropy(states, self.weight, self.bias, words)

    @torch.no_grad()
    def predict(self, states: Tensor) -> Tensor:
        """The most likely word of each state: (..., D) float -> (...) int64 in [0, V)."""
        return self(states).argmax(dim=-1)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the rows of all processes, on CPUs as well as GPUs.

    W processes with B rows each compute what one process with W·B rows would, including gradients, which DDP averages.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """(B, D) float -> (B, D) float, the same B on every process."""
        if not self.training or world_size() == 1:
            return super().forward(rows)
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.float()
            count = len(rows) * world_size()
            mean = differentiable_sum(rows.sum(dim=0)) / count
            variance = differentiable_sum((rows - mean).square().sum(dim=0)) / count
            self._update_running_statistics(mean.detach(), variance.detach() * count / (count - 1))
            normal = (rows - mean) * torch.rsqrt(variance + self.eps)
            return normal * self.weight + self.bias if self.affine else normal

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


def batch_norm_mlp(widths: Sequence[int]) -> nn.Sequential:
    """An MLP of linear layers without bias, each with batch norm and ReLU; the last has no ReLU and no affine norm (MoCo v3).

    Args:
        widths: Widths of the input, the hidden layers and the output.
    """
    layers: list[nn.Module] = []
    for number, (width, next_width) in enumerate(pairwise(widths), start=1):
        layers.append(nn.Linear(width, next_width, bias=False))
        is_last = number == len(widths) - 1
        layers.append(BatchNorm(next_width, affine=not is_last))
        if not is_last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class PrototypeHead(nn.Module):
    """DINO's head: an MLP with GELU to an L2-normalised bottleneck, then scores against prototypes.

    Args:
        embed_dim: Width of the input, D.
        hidden_dim: Width of the two hidden layers.
        bottleneck_dim: Width of the bottleneck.
        num_prototypes: K.
        norm_last_layer: Whether prototypes stay unit vectors; otherwise their lengths are learned, as DINO recommends for ViT-S.
    """

    def __init__(
        self, embed_dim: int, *, hidden_dim: int, bottleneck_dim: int, num_prototypes: int, norm_last_layer: bool = True
    ) -> None:
        super().__init__()
        widths = [embed_dim, hidden_dim, hidden_dim, bottleneck_dim]
        linears = [nn.Linear(width, next_width) for width, next_width in pairwise(widths)]
        self.mlp = nn.Sequential(linears[0], nn.GELU(), linears[1], nn.GELU(), linears[2])
        for linear in linears:
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, bottleneck_dim))
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)
        self.lengths = nn.Parameter(torch.ones(num_prototypes, 1), requires_grad=not norm_last_layer)

    def forward(self, rows: Tensor, *, frozen: bool = False) -> Tensor:
        """Scores of rows: (B, D) float -> (B, K) float. With ``frozen``, the gradient of the prototypes is zero."""
        prototypes: Tensor = self.prototypes
        lengths: Tensor = self.lengths
        if frozen:  # DDP needs a gradient of every parameter, even if it is zero
            prototypes, lengths = prototypes.detach() + 0 * prototypes, lengths.detach() + 0 * lengths
        scores = F.linear(F.normalize(self.mlp(rows), dim=1), prototypes)
        return scores * (lengths[:, 0] / prototypes.norm(dim=1))  # cheaper than normalising the prototypes
