"""DINO (Caron et al., 2021): a student matches the scores that a slower teacher gives to other crops of the image.

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
from lit_splitmask.objectives.base import Objective, check_shares, check_sizes
from lit_splitmask.optim import half_cosine

NUM_GLOBAL = 2


class DINO(Objective):
    """Self-distillation; the first two crops are the global ones, which the teacher sees.

    Its losses: ``loss`` (cross-entropy in nats) and ``teacher_entropy`` in nats, log K where its targets say nothing.

    Args:
        backbone: the student; without a CLS token its patch features are pooled.
        num_prototypes: K.
        hidden_dim, bottleneck_dim: of the head.
        norm_last_layer: prototypes stay unit vectors.
        student_temperature: of the student's scores.
        teacher_temperature: of the teacher's, reached from ``warmup_teacher_temperature`` in ``warmup_share`` of the run.
        momentum: of the teacher at the start; it rises to 1 along half a cosine.
        centre_momentum: of the centre that is taken from the teacher's scores.
        freeze_share: share of the run in which the prototypes stay as they are (one epoch of a hundred).
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
        check_shares(
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
        everything = torch.stack(log_probabilities).sum(dim=0)
        terms = [
            -(target * (everything - own)).sum(dim=1).mean()  # all the student's crops but the teacher's own
            for target, own in zip(targets, log_probabilities, strict=False)
        ]
        entropy = torch.stack([-(target * target.clamp(min=1e-12).log()).sum(dim=1).mean() for target in targets])
        num_pairs = NUM_GLOBAL * (len(crops) - 1)
        return {"loss": torch.stack(terms).sum() / num_pairs, "teacher_entropy": entropy.mean()}

    @property
    def teacher_temperature_now(self) -> float:
        """It rises in a line over the warm-up."""
        start, end = self.warmup_teacher_temperature, self.teacher_temperature
        return end if self.progress >= self.warmup_share else start + (end - start) * self.progress / self.warmup_share

    def _pooled(self, crops: list[Tensor]) -> list[Tensor]:
        """Descriptors (B, D) of each crop; crops of one size go through the backbone together."""
        result: list[Tensor] = []
        for _, group in groupby(crops, key=lambda crop: crop.shape):
            same = list(group)
            result += self.backbone.pooled(torch.cat(same)).chunk(len(same))
        return result

    @torch.no_grad()
    def _move_centre(self, scores: Tensor) -> None:
        """Takes the teacher's scores (R, K) of this batch into the centre, over all processes."""
        mean = scores.mean(dim=0)
        sum_over_processes(mean)
        self.centre.lerp_(mean / world_size(), 1 - self.centre_momentum)

    def before_update(self) -> None:
        if (
            self.progress < self.freeze_share
        ):  # without a gradient the optimizer leaves them out, and its averages as well
            self.head.prototypes.grad = self.head.lengths.grad = None

    def after_step(self, progress: float) -> None:
        momentum = half_cosine(self.momentum, 1.0, self.progress)  # of the step that was made, as in its published code
        self.teacher_backbone.follow(self.backbone, momentum)
        self.teacher_head.follow(self.head, momentum)
