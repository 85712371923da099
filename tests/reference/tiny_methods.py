"""Every pre-training method on a tiny backbone, with the options that shrink its recipes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from reference.tiny import tiny_batch, tiny_splitmask, tiny_tokenizer, tiny_vit

from lit_splitmask.masking import BlockMasking
from lit_splitmask.objectives import (
    DINO,
    MAE,
    BEiT,
    InstanceDiscrimination,
    MoCoV3,
    Objective,
    RelativeLocalisation,
    SimMIM,
    SplitMask,
    Supervised,
)

SMALL_DINO: dict[str, Any] = {"num_prototypes": 24, "hidden_dim": 20, "bottleneck_dim": 12}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "cls": {"class_token": True},
    "sincos": {"positions": "sincos"},
    "six patches": {"image_size": 48},
}
"""Backbones on which methods are compared with their papers' formulas."""


def splitmask(**shape: Any) -> SplitMask:
    return tiny_splitmask(tiny_vit(**shape))


def beit(**shape: Any) -> BEiT:
    return BEiT(tiny_vit(**shape), tokenizer=tiny_tokenizer, masking=BlockMasking(mask_ratio=0.4))


def mae(**shape: Any) -> MAE:
    return MAE(tiny_vit(**shape), decoder_dim=16, decoder_depth=2, decoder_heads=2)


def simmim(**shape: Any) -> SimMIM:
    return SimMIM(tiny_vit(**shape))


def mocov3(**shape: Any) -> MoCoV3:
    return MoCoV3(tiny_vit(**shape), hidden_dim=24, output_dim=16)


def dino(**changes: Any) -> DINO:
    shape = {key: changes.pop(key) for key in list(changes) if key in ("class_token", "positions", "image_size")}
    return DINO(tiny_vit(**shape), **{**SMALL_DINO, "freeze_share": 0.0, **changes})


def supervised(**shape: Any) -> Supervised:
    model = Supervised(tiny_vit(**shape), mixup=0.0, cutmix=0.0, auxiliary=RelativeLocalisation)
    model.attach(3, 8)
    return model


def instance(*, num_images: int = 8, **changes: Any) -> InstanceDiscrimination:
    shape = {key: changes.pop(key) for key in list(changes) if key in ("class_token", "positions", "image_size")}
    model = InstanceDiscrimination(tiny_vit(**shape), **{"cutmix": 0.0, **changes})
    model.attach(0, num_images)
    return model


@dataclass(frozen=True)
class TinyMethod:
    """A pre-training method in tests.

    Attributes:
        make: Makes it on a tiny backbone.
        recipe_options: Options that shrink the networks of its recipes, apart from the backbone.
    """

    make: Callable[..., Objective]
    recipe_options: str = ""


FEW_WORDS = "--model.objective.tokenizer.vocabulary 16"

METHODS = {
    "splitmask": TinyMethod(splitmask, FEW_WORDS),
    "beit": TinyMethod(beit, FEW_WORDS),
    "mae": TinyMethod(
        mae, "--model.objective.decoder_dim 32 --model.objective.decoder_depth 1 --model.objective.decoder_heads 2"
    ),
    "simmim": TinyMethod(simmim),
    "mocov3": TinyMethod(mocov3, "--model.objective.hidden_dim 16"),
    "dino": TinyMethod(
        dino, "--model.objective.num_prototypes 16 --data.augment.local_size 16 --model.objective.hidden_dim 16"
    ),
    "supervised": TinyMethod(supervised),
    "instance": TinyMethod(instance),
}
"""By the names of their recipes."""


def batch_of(num_images: int = 4, image_size: int = 32, num_crops: int = 2, seed: int = 0) -> dict[str, Any]:
    """A batch with everything that a method may take."""
    crops = [tiny_batch(num_images, image_size, seed=seed + number)["images"] for number in range(num_crops)]
    index = torch.arange(num_images)
    return {**tiny_batch(num_images, image_size, seed=seed), "crops": crops, "labels": index % 3, "index": index}
