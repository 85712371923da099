"""One optimizer-and-schedule recipe for every module: AdamW, warm-up and cosine or line per step, layer-wise decay."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lit_splitmask.errors import UserError

ScheduleKind = Literal["cosine", "poly", "steps"]

STEPS_DOWN = (27 / 36, 33 / 36)
"""Shares of the steps after which the schedule ``steps`` takes a tenth of the rate (Swin's epochs 27 and 33 of 36)."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and a cosine (or a straight line, or steps down), per step.

    Attributes:
        lr: peak learning rate at ``reference_batch`` images a step.
        reference_batch: another batch size scales the rate by the square root of their ratio; 0: never scale.
        weight_decay: for matrices and, as in BEiT, mask tokens; other vectors, positions and CLS tokens have none.
        beta1, beta2: AdamW's betas (BEiT's command line gives 0.98 for the second).
        warmup: share of the steps with a linearly rising rate (10 of 300 epochs in BEiT's recipe).
        min_lr: the rate at the end, at ``reference_batch``; ``steps`` has no such end.
        weight_decay_end: where half a cosine takes the weight decay over the run (DINO); ``None``: it stays.
        layer_decay: factor from block to block towards the input (Table 9); 1.0 for none.
        schedule: after the warm-up half a ``cosine`` down to ``min_lr``; or ``poly``, the polynomial of power 1, a straight
            line, of the segmentation recipes of BEiT, XCiT and MAE; or ``steps``, a tenth of the rate at each of
            :data:`STEPS_DOWN`.
    """

    lr: float = 1.5e-3
    reference_batch: int = 2048
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    warmup: float = 10 / 300
    min_lr: float = 1e-5
    layer_decay: float = 1.0
    weight_decay_end: float | None = None
    schedule: ScheduleKind = "cosine"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise UserError(f"optim.lr is {self.lr}; it must be positive.")
        for name in ("reference_batch", "weight_decay", "min_lr"):
            if getattr(self, name) < 0:
                raise UserError(f"optim.{name} is {getattr(self, name)}; it must be at least 0.")
        if self.weight_decay == 0 and self.weight_decay_end:
            raise UserError(
                f"optim.weight_decay is 0, so it cannot move to weight_decay_end={self.weight_decay_end}: let it start above 0."
            )
        if not 0 <= self.warmup < 1:
            raise UserError(f"optim.warmup is {self.warmup}; it is a share of the steps, in [0, 1).")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"optim.layer_decay is {self.layer_decay}; it must be in (0, 1].")
        if self.schedule not in get_args(ScheduleKind):
            raise UserError(
                f"optim.schedule is {self.schedule}; it must be one of {', '.join(get_args(ScheduleKind))}."
            )


def batch_scale(config: OptimConfig, batch_size: int) -> float:
    """The factor by which ``batch_size`` changes the learning rate."""
    return math.sqrt(batch_size / config.reference_batch) if config.reference_batch else 1.0


def lr_factor(
    step: int, total_steps: int, warmup_steps: int, min_factor: float, *, schedule: ScheduleKind = "cosine"
) -> float:
    """Share of the peak rate at ``step`` (0-based): linear from 0 up to 1, then down to ``min_factor``, or by tenths."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "steps":
        return float(0.1 ** sum(step >= share * total_steps for share in STEPS_DOWN))
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    left = 1 - progress if schedule == "poly" else (1 + math.cos(math.pi * progress)) / 2
    return min_factor + (1 - min_factor) * left


def half_cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` at 0 to ``end`` at 1 along half a cosine, as weight decays and momenta go (DINO, MoCo v3)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def layer_of(name: str, depth: int) -> int:
    """Layer of a ViT parameter: 0 the embeddings, i + 1 block i, depth + 1 all that follows (BEiT's numbering)."""
    if re.search(r"(?:^|\.)decoder\.", name):
        return depth + 1
    block = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    return 0 if re.search(r"(?:^|\.)(cls_token|pos_embed|patch_embed\.)", name) else depth + 1


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig, *, lr: float, depth: int
) -> list[dict[str, Any]]:
    """Groups by weight decay and layer, each with its own ``lr`` (torch's schedulers ignore timm's ``lr_scale``)."""
    groups: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not name.endswith(("bias", "pos_embed", "cls_token"))
        layer = layer_of(name, depth) if config.layer_decay != 1 else depth + 1
        group = groups.setdefault(
            (decays, layer),
            {
                "params": [],
                "lr": lr * config.layer_decay ** (depth + 1 - layer),
                "weight_decay": config.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    config: OptimConfig,
    *,
    batch_size: int,
    total_steps: int,
    depth: int,
    fused: bool = False,
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """The optimizer and its per-step schedule.

    Args:
        named_parameters: of the module that trains.
        config: the recipe.
        batch_size: images that one step sees, over all processes and accumulated batches.
        total_steps: optimizer steps of the whole run.
        depth: blocks of the backbone, for the layer-wise decay.
        fused: torch's fused update, which takes an eighth of the plain one's time on a CPU.
    """
    lr = config.lr * batch_scale(config, batch_size)
    groups = parameter_groups(named_parameters, config, lr=lr, depth=depth)
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(config.beta1, config.beta2), fused=fused)
    warmup_steps = round(config.warmup * total_steps)
    min_factor = min(1.0, config.min_lr / config.lr)
    return optimizer, LambdaLR(
        optimizer,
        lambda step: lr_factor(step, total_steps, warmup_steps, min_factor, schedule=config.schedule),
    )
