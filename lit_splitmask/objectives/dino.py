"""DINO (Caron et al., 2021): a student matches the scores that a slowly moving teacher gives to other crops of the image.

B images, D width, K prototypes.
"""

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.distributed import sum_over_processes, world_size
from lit_splitmask.errors import UserError
from lit_splitmask.models.heads import PrototypeHead
from lit_splitmask.models.teacher import Teacher
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_in_unit_interval, check_sizes
from lit_splitmask.optim import half_cosine

NUM_GLOBAL = 2
"""Number of global crops, which come first in a batch."""


class DINO(Objective):
    """Self-distillation without labels; the teacher sees the first two crops, which are global.

    Its losses: ``loss`` (cross-entropy in nats), and ``teacher_entropy`` in nats, which is log K if the targets are uniform.

    Args:
        backbone: The student; without a CLS token its patch features are pooled.
        num_prototypes: Number of prototypes K.
        hidden_dim, bottleneck_dim: Widths of the head.
        norm_last_layer: Whether the prototypes stay unit vectors.
        student_temperature: Temperature of the student's scores.
        teacher_temperature: Temperature of the teacher's scores after the warm-up.
        warmup_teacher_temperature: Temperature of the teacher's scores at the start.
        warmup_share: Share of the run over which the teacher's temperature changes linearly.
        momentum: Momentum of the teacher at the start; it rises to 1 along half a cosine.
        centre_momentum: Momentum of the centre, which is subtracted from the teacher's scores.
        freeze_share: Share of the run in which the prototypes are frozen (one epoch of a hundred).

    Raises:
        UserError: ``hidden_dim`` or ``bottleneck_dim`` is below 1; ``warmup_share``, ``momentum``, ``centre_momentum`` or
            ``freeze_share`` is outside [0, 1]; ``num_prototypes`` is below 2; or a temperature is not positive.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import DINO
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> dino = DINO(vit, num_prototypes=16, hidden_dim=32, bottleneck_dim=8)
        >>> crops = [torch.randn(4, 3, side, side) for side in (32, 32, 16)]
        >>> list(dino({"crops": crops}, torch.Generator()))
        ['loss', 'teacher_entropy']
    """

    num_crops = 2
    centre: Tensor

    def __init__(
        self,
        backbone: ViT,
        *,
        num_prototypes: int = 65_536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = True,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        warmup_share: float = 0.1,
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        freeze_share: float = 0.01,
    ) -> None:
        super().__init__(backbone)
        check_sizes(hidden_dim=hidden_dim, bottleneck_dim=bottleneck_dim)
        check_in_unit_interval(
            warmup_share=warmup_share, momentum=momentum, centre_momentum=centre_momentum, freeze_share=freeze_share
        )
        if num_prototypes < 2 or min(student_temperature, teacher_temperature, warmup_teacher_temperature) <= 0:
            raise UserError("DINO needs at least two prototypes, and positive temperatures.")
        self.head = PrototypeHead(
            backbone.embed_dim,
            hidden_dim=hidden_dim,
            bottleneck_dim=bottleneck_dim,
            num_prototypes=num_prototypes,
            norm_last_layer=norm_last_layer,
        )
        self.teacher_backbone, self.teacher_head = Teacher(backbone), Teacher(self.head)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.warmup_teacher_temperature, self.warmup_share = warmup_teacher_temperature, warmup_share
        self.momentum, self.centre_momentum, self.freeze_share = momentum, centre_momentum, freeze_share
        self.register_buffer("centre", torch.zeros(num_prototypes))

    @property
    def kept(self) -> ViT:
        network = self.teacher_backbone.network
        assert isinstance(network, ViT)
        return network

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        crops = batch["crops"]
        frozen = self.progress < self.freeze_share
        student = self.head(torch.cat(self._pooled(crops)), frozen=frozen).float() / self.student_temperature
        log_probabilities = F.log_softmax(student, dim=1).chunk(len(crops))
        with torch.no_grad():
            both = torch.cat([self.kept.pooled(crop) for crop in crops[:NUM_GLOBAL]])
            scores = self.teacher_head(both).float()
        targets = ((scores - self.centre) / self.teacher_temperature_now).softmax(dim=1).chunk(NUM_GLOBAL)
        if self.training:
            self._move_centre(scores)
        all_crops = torch.stack(log_probabilities).sum(dim=0)
        terms = [
            -(target * (all_crops - own)).sum(dim=1).mean()  # the student's other crops
            for target, own in zip(targets, log_probabilities, strict=False)
        ]
        entropy = torch.stack([-(target * target.clamp(min=1e-12).log()).sum(dim=1).mean() for target in targets])
        num_pairs = NUM_GLOBAL * (len(crops) - 1)
        return {"loss": torch.stack(terms).sum() / num_pairs, "teacher_entropy": entropy.mean()}

    @property
    def teacher_temperature_now(self) -> float:
        """Temperature of the teacher's scores at this point of the run: linear over the warm-up, then constant."""
        start, end = self.warmup_teacher_temperature, self.teacher_temperature
        return end if self.progress >= self.warmup_share else start + (end - start) * self.progress / self.warmup_share

    def _pooled(self, crops: list[Tensor]) -> list[Tensor]:
        """Descriptors (B, D) of each crop; neighbouring crops of one size go through the backbone as one batch."""
        result: list[Tensor] = []
        for _, group in groupby(crops, key=lambda crop: crop.shape):
            same = list(group)
            result += self.backbone.pooled(torch.cat(same)).chunk(len(same))
        return result

    @torch.no_grad()
    def _move_centre(self, scores: Tensor) -> None:
        """Moves the centre towards the mean of the teacher's scores (2B, K), over all processes."""
        mean = scores.mean(dim=0)
        sum_over_processes(mean)
        self.centre.lerp_(mean / world_size(), 1 - self.centre_momentum)

    def before_update(self) -> None:
        """Drops the gradient of frozen prototypes: then the optimizer skips them, and its moving averages stay unchanged."""
        if self.progress < self.freeze_share:
            self.head.prototypes.grad = self.head.lengths.grad = None

    def after_step(self, progress: float) -> None:
        """Moves the teacher."""
        momentum = half_cosine(self.momentum, 1.0, self.progress)  # progress before the step, as in the published code
        self.teacher_backbone.follow(self.backbone, momentum)
        self.teacher_head.follow(self.head, momentum)
