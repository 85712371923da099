"""The solved linear probe as the head of a network to fine-tune: LP-FT."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.distributed import broadcast_from_zero
from lit_splitmask.models.vit import ViT
from lit_splitmask.probing import LinearProbe
from lit_splitmask.selection.snapshot import ImageSubset, Snapshot, undisturbed


class _HeadInputs(nn.Module):
    """What the head of a ViT sees, as the features of a :class:`Snapshot`."""

    def __init__(self, vit: ViT, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.vit, self.normalise = vit, normalise

    @property
    def device(self) -> torch.device:
        return self.vit.pos_embed.device

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, D)."""
        return self.vit.forward_head(self.vit.forward_features(self.normalise(images)), pre_logits=True)


def solve_head(
    vit: ViT,
    images: Any,
    normalise: Callable[[Tensor], Tensor],
    precision: Callable[[], AbstractContextManager[Any]],
) -> LinearProbe:
    """Overwrites the head with the linear probe of the head's inputs, so that training starts from its predictions.

    Fine-tuning from a random head distorts good features before the head has learned to use them (Kumar et al. 2022,
    *Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution*, LP-FT). The processes share the images;
    the head is that of process 0 on all of them. Random states are not touched.

    Args:
        vit: A network with a head.
        images: Training images without augmentation: dicts with ``image`` and ``label``, which is -1 for an image without one.
        normalise: From uint8 images to the network's input.
        precision: Makes the context in which the network computes.

    Returns:
        The probe. It standardises its inputs; the head has this in its weights.

    Raises:
        UserError: The images are of fewer than two classes.
    """
    train, nothing = ImageSubset(images, len(images)), ImageSubset([], 0)
    with undisturbed(vit):
        inputs = _HeadInputs(vit, normalise)
        features, labels = Snapshot(inputs, train, nothing, vit.num_classes, seed=0, precision=precision).train_features
    has_label = labels >= 0
    probe = LinearProbe(features[has_label], labels[has_label], vit.num_classes)
    scaled = probe.weights[:-1] / probe.std[:, None]
    weight, bias = vit.get_parameter("head.weight"), vit.get_parameter("head.bias")
    with torch.no_grad():
        weight.copy_(scaled.T)
        bias.copy_(probe.weights[-1] - probe.mean @ scaled)
    broadcast_from_zero(weight.data)
    broadcast_from_zero(bias.data)
    return probe
