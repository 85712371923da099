"""A moving average of a network: DINO's teacher, MoCo v3's momentum encoder."""

import copy
from typing import Any, Self

import torch
from timm.layers import DropPath
from torch import Tensor, nn


class Teacher(nn.Module):
    """A copy of a network whose weights are a moving average of the network's, without gradients or drop path.

    It has its own buffers, such as the statistics of batch norms.

    Args:
        student: The network to copy and follow.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    def forward(self, *inputs: Any) -> Any:
        """The output of the copy."""
        return self.network(*inputs)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, DropPath):
                part.eval()
        return self

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Moves the weights: ``momentum`` × teacher + (1 − ``momentum``) × student."""
        ours: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(student.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - momentum)
