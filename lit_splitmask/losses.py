"""The losses: cross-entropy over many words or classes in bounded memory, InfoNCE, and cross-entropy over labelled pixels.

M rows (such as masked patches), V words, B images, D width, W processes, K classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.distributed import gather, rank, sum_over_processes, world_size

IGNORED = -1
"""Value of pixels without a label in label maps."""

CHUNK_ELEMENTS = 2**24
"""Most logits that a head's cross-entropy holds at a time (64 MiB in float32), unless it has so many classes that this would be
fewer than D/4 rows."""

CPU_CHUNK_ELEMENTS = 2**22
"""The same on a CPU, whose caches are small: a quarter faster than 2²⁴ (ViT-S, 8,192 words)."""


@dataclass(frozen=True)
class _Words:
    """One word per row: (M,) int64 in [0, K)."""

    words: Tensor

    def loss(self, log_probs: Tensor, rows: slice) -> Tensor:
        return -log_probs.gather(1, self.words[rows, None]).sum()

    def hits(self, top: Tensor, rows: slice) -> Tensor:
        return (top == self.words[rows]).sum()

    def subtract_from(self, probabilities: Tensor, rows: slice) -> None:
        target = self.words[rows, None]
        probabilities.scatter_add_(1, target, probabilities.new_full(target.shape, -1.0))


@dataclass(frozen=True)
class _Mixtures:
    """A mixture of a few classes per row, smoothed over all K: classes (B,) int64, their shares (M, B) float32 in each row."""

    classes: Tensor
    shares: Tensor
    smoothing: float

    def loss(self, log_probs: Tensor, rows: slice) -> Tensor:
        mixed = (log_probs.index_select(1, self.classes) * self.shares[rows]).sum()
        if not self.smoothing:
            return -mixed
        return -(1 - self.smoothing) * mixed - self.smoothing * log_probs.mean(dim=1).sum()

    def hits(self, top: Tensor, rows: slice) -> Tensor:
        return (self.shares[rows] * (top[:, None] == self.classes)).sum()

    def subtract_from(self, probabilities: Tensor, rows: slice) -> None:
        probabilities.index_add_(1, self.classes, self.shares[rows], alpha=self.smoothing - 1)
        if self.smoothing:
            probabilities -= self.smoothing / probabilities.shape[1]


class _HeadCrossEntropy(torch.autograd.Function):
    """Linear head and cross-entropy, chunk by chunk; the forward pass also computes the gradients, so no logits are saved."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: _Words | _Mixtures, chunk: int
    ) -> tuple[Tensor, Tensor]:
        needs_grad = any(ctx.needs_input_grad[:3])
        device_type = states.device.type
        dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else weight.dtype
        with torch.autocast(device_type, enabled=False):
            matrix, offset = weight.to(dtype), bias.to(dtype)
            total = torch.zeros((), device=states.device)
            correct = torch.zeros((), device=states.device)
            grad_states = torch.empty_like(states) if needs_grad else None
            grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_grad else None
            grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_grad else None
            for start in range(0, len(states), chunk):
                rows = slice(start, start + chunk)
                part = states[rows].to(dtype)
                logits = torch.addmm(offset, part, matrix.t())  # (chunk, K)
                log_probs = F.log_softmax(logits, dim=1, dtype=torch.float32)
                correct += targets.hits(log_probs.argmax(dim=1), rows)  # float32: in bfloat16 it is slow on CPUs
                total += targets.loss(log_probs, rows)
                if grad_states is not None and grad_weight is not None and grad_bias is not None:
                    grad_logits = log_probs.exp_()  # the targets of a row sum to 1: probabilities minus targets
                    targets.subtract_from(grad_logits, rows)
                    grad_bias += grad_logits.sum(dim=0)
                    grad_logits = grad_logits.to(dtype)
                    grad_states[rows] = grad_logits @ matrix
                    grad_weight += grad_logits.t() @ part
        if needs_grad:
            ctx.save_for_backward(grad_states, grad_weight, grad_bias)
            ctx.count = len(states)
        accuracy = correct / len(states)
        ctx.mark_non_differentiable(accuracy)
        return total / len(states), accuracy

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[override]
        states, weight, bias = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.count
        return states * scale.to(states.dtype), weight * scale, bias * scale, None, None


def _chunk(states: Tensor, weight: Tensor) -> int:
    """Number of rows whose logits are held at a time."""
    elements = CPU_CHUNK_ELEMENTS if states.device.type == "cpu" else CHUNK_ELEMENTS
    # Each chunk reads the whole head and writes its gradient, which takes longer than computing if the rows are few. A quarter of
    # the width keeps the logits at a quarter of the head (320,000 classes: a third less time than the limit's 13 rows).
    num_classes, width = weight.shape
    return max(1, width // 4, elements // num_classes)


def word_cross_entropy(states: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of a linear head over V words, holding one chunk of logits at a time.

    The plain form saves M·V logits for the backward pass. This one computes the gradients of each chunk in the forward pass and
    saves those: M·D + V·D numbers, for the same three matrix products.

    Args:
        states: Features of the masked patches, (M, D) float.
        weight, bias: The head, (V, D) and (V,) float32.
        words: Target words, (M,) int64 in [0, V).

    Returns:
        The loss and the accuracy in [0, 1] (without gradient), float32 scalars.
    """
    return _HeadCrossEntropy.apply(states, weight, bias, _Words(words), _chunk(states, weight))


def mixture_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor, classes: Tensor, shares: Tensor, *, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of a linear head over K classes, whose targets are smoothed mixtures of the classes of a batch.

    The target of row i gives class ``classes[j]`` the probability ``(1 - smoothing) · shares[i, j]``, and every class
    ``smoothing / K`` more. Memory is bounded as in :func:`word_cross_entropy`; there are no dense targets either.

    Args:
        states: (M, D) float.
        weight, bias: The head, (K, D) and (K,) float32.
        classes: (B,) int64 in [0, K); a class may occur several times.
        shares: (M, B) float, in rows that sum to 1.
        smoothing: Share of the target that is spread over all classes, in [0, 1).

    Returns:
        The loss, and the mean over rows of the share of the class with the largest logit, in [0, 1] (without gradient); float32
        scalars.
    """
    targets = _Mixtures(classes, shares.float(), smoothing)
    return _HeadCrossEntropy.apply(states, weight, bias, targets, _chunk(states, weight))


def info_nce(
    a: Tensor, b: Tensor, temperature: float = 0.2, *, same_branch_negatives: bool = False
) -> tuple[Tensor, Tensor]:
    """InfoNCE between the two descriptors of each image, averaged over both directions (Eq. 2).

    Descriptors are L2-normalised first. The negatives of an image are the other branch's descriptors of all other images,
    gathered from all processes with gradient. Computed in float32 under autocast too.

    Args:
        a, b: Descriptors of the two branches, (B, D) float, the same B on every process.
        temperature: τ > 0.
        same_branch_negatives: Whether the same branch's descriptors of the other images are negatives too (SimCLR's 2N − 2).

    Returns:
        The loss, and the share of images whose positive has the highest similarity, in [0, 1] (without gradient); float32
        scalars.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
        all_a, all_b = gather(a), gather(b)  # (W·B, D)
        labels = torch.arange(len(a), device=a.device) + rank() * len(a)
        loss, correct = torch.zeros((), device=a.device), torch.zeros((), device=a.device)
        for anchors, others, same in ((a, all_b, all_a), (b, all_a, all_b)):
            logits = anchors @ others.t() / temperature  # (B, W·B)
            if same_branch_negatives:
                own = F.one_hot(labels, len(same)).bool()
                logits = torch.cat([logits, (anchors @ same.t() / temperature).masked_fill(own, -torch.inf)], dim=1)
            loss = loss + F.cross_entropy(logits, labels) / 2
            correct += (logits.argmax(dim=1) == labels).float().mean() / 2
    return loss, correct.detach()


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels of all processes; 0 if there are none.

    Each process divides the sum over its own pixels by the average number of labelled pixels per process. So the mean of
    these losses over the processes, and of their gradients in DDP, is the mean over all labelled pixels.

    Args:
        logits: (B, K, H, W) float.
        target: (B, H, W) int64 in [0, K), or :data:`IGNORED` for pixels without a label.

    Returns:
        The loss, a float32 scalar.
    """
    total = F.cross_entropy(logits.float(), target, ignore_index=IGNORED, reduction="sum")
    count = (target != IGNORED).sum().float()
    sum_over_processes(count)
    return total * world_size() / count.clamp(min=1)
