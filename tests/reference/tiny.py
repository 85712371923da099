"""Backbones and batches that are small enough for slow references."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.objectives import SplitMask
from lit_splitmask.tokenizers import RandomProjection


def tiny_config(**changes: Any) -> ViTConfig:
    """32 pixels, 4×4 patches, width 32, two blocks."""
    return ViTConfig(**{"patch_size": 8, "image_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, **changes})


def tiny_vit(seed: int = 0, num_classes: int = 0, **changes: Any) -> ViT:
    """A seeded backbone with larger weights than usual, so positions and content both matter."""
    torch.manual_seed(seed)
    vit = ViT(tiny_config(**changes), num_classes)
    with torch.no_grad():
        for parameter in vit.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return vit


def tiny_tokenizer(patch_size: int, in_chans: int) -> RandomProjection:
    """64 random words of varied use."""
    return RandomProjection(patch_size, in_chans, vocabulary=64, pixels="centred", signed=True)


def tiny_splitmask(backbone: ViT | None = None, **changes: Any) -> SplitMask:
    """SplitMask over 64 words, seeded."""
    backbone = backbone or tiny_vit()
    torch.manual_seed(1)
    return SplitMask(backbone, **{"tokenizer": tiny_tokenizer, **changes})


def tiny_batch(batch_size: int = 4, image_size: int = 32, channels: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Noise: normalised images and their half-size view in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(batch_size, channels, image_size, image_size, generator=generator)
    return {"images": (pixels - 0.5) / 0.25, "token_view": torch.nn.functional.avg_pool2d(pixels, 2)}


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blanked(images: Tensor, hide: Tensor) -> Tensor:
    """The images (B, C, 32, 32) with other pixels in the patches ``hide`` (B, n) of 8×8 pixels."""
    images = images.clone()
    for image, patches in zip(images, hide.tolist(), strict=True):
        for i in patches:
            image[:, i // 4 * 8 : i // 4 * 8 + 8, i % 4 * 8 : i % 4 * 8 + 8] = 3.0
    return images


def assert_same_gradients(model: nn.Module, ours: Tensor, exact: Tensor, other: nn.Module | None = None) -> None:
    """Compares the gradients of a loss with those of its slow reference, computed by ``other`` if given."""
    found, expected = (
        torch.autograd.grad(loss, [p for p in part.parameters() if p.requires_grad], allow_unused=True)
        for loss, part in ((ours, model), (exact, other or model))
    )
    for one, reference in zip(found, expected, strict=True):
        assert (one is None) == (reference is None)
        if one is not None:
            torch.testing.assert_close(one, reference, rtol=1e-3, atol=1e-5)
