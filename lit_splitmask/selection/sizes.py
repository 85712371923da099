"""What the cost of measuring signals depends on."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lit_splitmask.models.vit import ViT
from lit_splitmask.selection.snapshot import ImageSubset


@dataclass(frozen=True)
class Sizes:
    """What the cost of a measurement depends on.

    Attributes:
        num_train: Number of training images.
        num_held_out: Number of held-out images.
        num_classes: Number of classes; 0 without labels.
        width: Width of the features.
        macs: Multiply-adds of one image's forward pass through the backbone; 0 if unknown.
    """

    num_train: int
    num_held_out: int
    num_classes: int
    width: int
    macs: int

    @classmethod
    def of(cls, module: nn.Module, train: ImageSubset, held_out: ImageSubset, num_classes: int) -> "Sizes":
        """The sizes of a module, whose ``vit`` is the backbone if it is a :class:`ViT` of this project, and of its images."""
        vit: Any = getattr(module, "vit", None)
        macs = width = 0
        if isinstance(vit, ViT):
            macs = sum(parameter.numel() for parameter in vit.parameters()) * vit.num_patches
            width = vit.embed_dim
        return cls(len(train), len(held_out), num_classes, width, macs)

    def at_most(self, max_images: int) -> "Sizes":
        """The sizes with at most these numbers of training images and of held-out images."""
        return replace(self, num_train=min(self.num_train, max_images), num_held_out=min(self.num_held_out, max_images))
