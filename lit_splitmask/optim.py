"""The optimizer and schedule of every module: AdamW, per-step warm-up and decay of the learning rate, layer-wise decay."""

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
"""Shares of the run at which the schedule ``steps`` divides the learning rate by 10 (Swin's epochs 27 and 33 of 36)."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with a linear warm-up, then a cosine, linear or step decay, updated at every step.

    Attributes:
        lr: Peak learning rate at ``reference_batch`` images per step.
        reference_batch: Batch size that ``lr`` is for; the rate scales with the square root of the batch size. 0 switches
            scaling off.
        weight_decay: Weight decay of matrices and, as in BEiT, of mask tokens; other vectors have none, and positions and CLS
            tokens only if ``decay_positions`` is set.
        beta1, beta2: AdamW's betas (BEiT's command line sets the second to 0.98).
        warmup: Share of the steps in which the rate rises linearly (10 of 300 epochs in BEiT's recipe).
        decay_positions: Whether learned positions and CLS tokens decay too, as in DINO's, MAE's and MoCo v3's published code.
        min_lr: Learning rate at the end of the run, at ``reference_batch``; the schedule ``steps`` ignores it.
        weight_decay_end: Weight decay at the end of the run, reached along half a cosine (DINO); None keeps it constant.
        layer_decay: Factor of the learning rate from each block to the one below it (Table 9); 1.0 for none.
        schedule: Decay after the warm-up: ``cosine``, half a cosine down to ``min_lr``; ``poly``, a straight line down to
            ``min_lr`` (the polynomial of power 1 in the segmentation recipes of BEiT, XCiT and MAE); or ``steps``, a division
            by 10 at each of :data:`STEPS_DOWN`.

    Raises:
        UserError: ``lr`` is not positive; ``reference_batch``, ``weight_decay`` or ``min_lr`` is negative; ``weight_decay`` is 0
            and ``weight_decay_end`` is not; ``warmup`` is outside [0, 1); ``layer_decay`` is outside (0, 1]; or ``schedule`` is
            unknown.
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
    decay_positions: bool = False

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise UserError(f"optim.lr is {self.lr}; it must be positive.")
        for name in ("reference_batch", "weight_decay", "min_lr"):
            if getattr(self, name) < 0:
                raise UserError(f"optim.{name} is {getattr(self, name)}; it must be at least 0.")
        if self.weight_decay == 0 and self.weight_decay_end:
            raise UserError(
                f"optim.weight_decay is 0, so it cannot change to weight_decay_end={self.weight_decay_end}: start above 0."
            )
        if not 0 <= self.warmup < 1:
            raise UserError(f"optim.warmup is {self.warmup}; it must be a share of the steps in [0, 1).")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"optim.layer_decay is {self.layer_decay}; it must be in (0, 1].")
        if self.schedule not in get_args(ScheduleKind):
            raise UserError(
                f"optim.schedule is {self.schedule}; it must be one of {', '.join(get_args(ScheduleKind))}."
            )


def batch_scale(config: OptimConfig, batch_size: int) -> float:
    """The factor on the learning rate for ``batch_size`` images per step."""
    return math.sqrt(batch_size / config.reference_batch) if config.reference_batch else 1.0


def lr_factor(
    step: int, total_steps: int, warmup_steps: int, min_factor: float, *, schedule: ScheduleKind = "cosine"
) -> float:
    """The learning rate at a step as a share of the peak rate.

    Args:
        step: Optimizer step, from 0.
        total_steps: Steps of the run.
        warmup_steps: Steps in which the rate rises linearly to the peak.
        min_factor: Share of the peak rate at the end; the schedule ``steps`` ignores it.
        schedule: Decay after the warm-up, as in :class:`OptimConfig`.

    Returns:
        A share in [0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "steps":
        return float(0.1 ** sum(step >= share * total_steps for share in STEPS_DOWN))
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    left = 1 - progress if schedule == "poly" else (1 + math.cos(math.pi * progress)) / 2
    return min_factor + (1 - min_factor) * left


def half_cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` at ``progress`` 0 to ``end`` at 1, for weight decay and momentum (DINO, MoCo v3)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def layer_of(name: str, depth: int) -> int:
    """Layer of a parameter: 0 for the embeddings, i + 1 for block i, depth + 1 for everything after (BEiT's numbering).

    Args:
        name: Name of the parameter in any module around a ViT.
        depth: Blocks of the ViT.
    """
    if re.search(r"(?:^|\.)(decoder|auxiliary)\.", name):
        return depth + 1
    block = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    return 0 if re.search(r"(?:^|\.)(cls_token|pos_embed|patch_embed\.)", name) else depth + 1


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig, *, lr: float, depth: int
) -> list[dict[str, Any]]:
    """Groups the trainable parameters by weight decay and layer.

    Each group has its own ``lr``, since torch's schedulers ignore timm's ``lr_scale``.

    Args:
        named_parameters: Parameters with their names; frozen ones are left out.
        config: Weight decay and layer decay.
        lr: Learning rate of the last layer.
        depth: Blocks of the backbone.

    Returns:
        The groups, as torch's optimizers take them.
    """
    groups: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        undecayed = ("bias",) if config.decay_positions else ("bias", "pos_embed", "cls_token")
        decays = parameter.ndim > 1 and not name.endswith(undecayed)
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
    """Makes the optimizer and its per-step schedule.

    Args:
        named_parameters: Parameters of the module that trains, with their names.
        config: Optimizer and schedule.
        batch_size: Images per optimizer step, over all processes and accumulated batches.
        total_steps: Optimizer steps of the whole run.
        depth: Blocks of the backbone, for the layer-wise decay.
        fused: Whether to use torch's fused update, which takes an eighth of the plain update's time on a CPU.
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
