"""The losses: cross-entropy over visual words in bounded memory, InfoNCE, and cross-entropy over labelled pixels.

M masked patches, V words, B images, D width, W processes, K classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.distributed import gather, rank, sum_over_processes, world_size

IGNORED = -1
"""Value of pixels without a label in label maps."""

CHUNK_ELEMENTS = 2**24
"""Most logits that :func:`word_cross_entropy` holds at a time (64 MiB in float32)."""

CPU_CHUNK_ELEMENTS = 2**22
"""The same on a CPU, whose caches are small: a quarter faster than 2²⁴ (ViT-S, 8,192 words)."""


class _WordCrossEntropy(torch.autograd.Function):
    """Linear head and cross-entropy, chunk by chunk; the forward pass also computes the gradients, so no logits are saved."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, words: Tensor, chunk: int
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
            for start in range(0, len(words), chunk):
                rows = slice(start, start + chunk)
                part, target = states[rows].to(dtype), words[rows]
                logits = torch.addmm(offset, part, matrix.t())  # (chunk, V)
                log_probs = F.log_softmax(logits, dim=1, dtype=torch.float32)
                correct += (log_probs.argmax(dim=1) == target).sum()  # float32: in bfloat16 it is slow on CPUs
                total -= log_probs.gather(1, target[:, None]).sum()
                if grad_states is not None and grad_weight is not None and grad_bias is not None:
                    grad_logits = log_probs.exp_()
                    grad_logits.scatter_add_(1, target[:, None], grad_logits.new_full((len(target), 1), -1.0))
                    grad_bias += grad_logits.sum(dim=0)
                    grad_logits = grad_logits.to(dtype)
                    grad_states[rows] = grad_logits @ matrix
                    grad_weight += grad_logits.t() @ part
        if needs_grad:
            ctx.save_for_backward(grad_states, grad_weight, grad_bias)
            ctx.count = len(words)
        accuracy = correct / len(words)
        ctx.mark_non_differentiable(accuracy)
        return total / len(words), accuracy

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[override]
        states, weight, bias = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.count
        return states * scale.to(states.dtype), weight * scale, bias * scale, None, None


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
    elements = CPU_CHUNK_ELEMENTS if states.device.type == "cpu" else CHUNK_ELEMENTS
    chunk = max(1, elements // len(weight))
    return _WordCrossEntropy.apply(states, weight, bias, words, chunk)


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
