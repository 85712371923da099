"""Prediction heads."""

import torch
from torch import Tensor, nn

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
