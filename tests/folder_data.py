"""Helpers for tests of datamodules: preparing them, taking batches, a stand-in for a trainer."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lit_splitmask.datamodules import ImageData, ImageFolder

Data = TypeVar("Data", bound=ImageData)

MakeData = Callable[..., ImageFolder]


def ready(data: Data, stage: str = "fit") -> Data:
    data.prepare_data()
    data.setup(stage)
    return data


def batches(data: ImageData, count: int) -> list[dict[str, Tensor]]:
    iterator = iter(data.train_dataloader())
    return [next(iterator) for _ in range(count)]


def same(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    """Whether two lists hold equal batches."""
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def stand_in(**settings: object) -> SimpleNamespace:
    """The attributes of a trainer that datamodules read."""
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(max_steps=-1))
    defaults = {
        "world_size": 1,
        "global_rank": 0,
        "accumulate_grad_batches": 1,
        "global_step": 0,
        "max_steps": -1,
        "max_epochs": -1,
        "limit_train_batches": 1.0,
    }
    return SimpleNamespace(fit_loop=loop, **(defaults | settings))


def noise(number: int) -> np.ndarray:
    """An image (30, 40, 3) uint8, different for every number."""
    return np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
