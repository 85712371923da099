"""A slowly following copy of a network, as DINO's teacher and MoCo v3's momentum encoder."""

import copy
from typing import Any, Self

import torch
from timm.layers import DropPath
from torch import Tensor, nn


class Teacher(nn.Module):
    """A copy of a network whose weights are a moving average of the network's; it gets no gradient and drops no paths.

    Its buffers (statistics of batch norms) are its own.

    Args:
        student: What is followed.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    def forward(self, *inputs: Any) -> Any:
        """What the copy says."""
        return self.network(*inputs)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, DropPath):
                part.eval()
        return self

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Weights become ``momentum`` times themselves plus the rest times the student's."""
        ours: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(student.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - momentum)
