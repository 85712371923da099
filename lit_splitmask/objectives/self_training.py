"""Self-training by a mean teacher on mixed images (Verma et al., 2019, "Interpolation Consistency Training").

B images, K classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.models.teacher import Teacher
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_in_unit_interval


class SelfTraining(Objective):
    """The classifier learns, on mixed images without labels, the mixture of its moving average's predictions for each of them.

    It is trained with a classification loss, which mixes the images (:class:`lit_splitmask.modules.Classify`); CutMix instead
    of mixup is French et al.'s (2020). The teacher is that of Tarvainen and Valpola (2017): the average of the weights so far
    at first, and then their moving average. Images with labels take no part. Its losses, of the images without labels:
    ``self_training``, the cross-entropy with the teacher's probabilities in nats; ``loss``, the same times its weight at this
    point of the run; and ``confidence``, the mean of the teacher's largest probabilities.

    Args:
        backbone: A classifier: a ViT with a head.
        momentum: Share of the teacher that a step keeps, in [0, 1].
        ramp_share: The loss's weight rises linearly from 0 to 1 in this share of the run, in [0, 1].

    Raises:
        UserError: ``backbone`` has no head, or ``momentum`` or ``ramp_share`` is outside [0, 1].

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import SelfTraining
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32), num_classes=3)
        >>> images = torch.randn(4, 3, 32, 32)
        >>> batch = {"images": images, "unmixed": images, "sources": torch.eye(4), "labels": torch.tensor([0, -1, -1, 2])}
        >>> list(SelfTraining(vit)({**batch, "logits": vit(images)}, torch.Generator()))
        ['loss', 'self_training', 'confidence']
    """

    takes_features = True
    steps_done: Tensor

    def __init__(self, backbone: ViT, *, momentum: float = 0.995, ramp_share: float = 0.25) -> None:
        if not backbone.num_classes:
            raise UserError(
                "SelfTraining learns from a classifier's own predictions, so it is not for pre-training: use it in "
                "fine-tuning, with lit-splitmask finetune --auxiliary SelfTraining."
            )
        check_in_unit_interval(momentum=momentum, ramp_share=ramp_share)
        super().__init__(backbone)
        self.momentum, self.ramp_share = momentum, ramp_share
        self.teacher = Teacher(backbone)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        if "logits" not in batch:
            raise UserError(
                "SelfTraining learns from a classifier's own predictions, but there are none: use it in Classify(auxiliary=…)."
            )
        alone = batch["labels"] < 0
        logits = batch["logits"][alone]
        if not len(logits):
            nothing = batch["logits"].sum() * 0  # the head still has a gradient on every process
            return {"loss": nothing, "self_training": nothing, "confidence": nothing}
        with torch.no_grad():
            probabilities = self.teacher(batch["unmixed"][alone]).float().softmax(dim=1)
        targets = batch["sources"][alone][:, alone].to(probabilities) @ probabilities
        loss = F.cross_entropy(logits.float(), targets)
        weight = min(1.0, self.progress / self.ramp_share) if self.ramp_share else 1.0
        confidence = probabilities.amax(dim=1).mean()
        return {"loss": weight * loss, "self_training": loss, "confidence": confidence}

    def after_step(self, progress: float) -> None:
        self.steps_done += 1
        self.teacher.follow(self.backbone, min(self.momentum, 1 - 1 / (int(self.steps_done) + 1)))
