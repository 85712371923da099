"""The compared methods, small enough for loops."""

from typing import Any

import torch
from reference.tiny import tiny_batch, tiny_tokenizer, tiny_vit

from lit_splitmask.masking import BlockMasking
from lit_splitmask.objectives import DINO, MAE, BEiT, MoCoV3, RelativeLocalisation, Supervised

SMALL_DINO: dict[str, Any] = {"num_prototypes": 24, "hidden_dim": 20, "bottleneck_dim": 12}


def beit(**shape: Any) -> BEiT:
    return BEiT(tiny_vit(**shape), tokenizer=tiny_tokenizer, masking=BlockMasking(mask_ratio=0.4))


def mae(**shape: Any) -> MAE:
    return MAE(tiny_vit(**shape), decoder_dim=16, decoder_depth=2, decoder_heads=2)


def moco(**shape: Any) -> MoCoV3:
    return MoCoV3(tiny_vit(**shape), hidden_dim=24, output_dim=16)


def dino(**changes: Any) -> DINO:
    shape = {key: changes.pop(key) for key in list(changes) if key in ("class_token", "positions", "image_size")}
    return DINO(tiny_vit(**shape), **{**SMALL_DINO, "freeze_share": 0.0, **changes})


def supervised(**shape: Any) -> Supervised:
    model = Supervised(tiny_vit(**shape), mixup=0.0, cutmix=0.0, auxiliary=RelativeLocalisation)
    model.attach(3)
    return model


METHODS = {"beit": beit, "mae": mae, "moco": moco, "dino": dino, "supervised": supervised}


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(num_images: int = 4, image_size: int = 32, num_crops: int = 2, seed: int = 0) -> dict[str, Any]:
    crops = [tiny_batch(num_images, image_size, seed=seed + number)["images"] for number in range(num_crops)]
    labels = torch.arange(num_images) % 3
    return {**tiny_batch(num_images, image_size, seed=seed), "crops": crops, "labels": labels}
