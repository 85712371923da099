"""MoCo v3 (Chen et al., 2021): match two crops of an image by contrast with the keys of a momentum encoder.

B images, W processes, D width, E dimensions of a key.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.distributed import gather, rank
from lit_splitmask.errors import UserError
from lit_splitmask.models.heads import batch_norm_mlp
from lit_splitmask.models.teacher import Teacher
from lit_splitmask.models.vit import ViT
from lit_splitmask.objectives.base import Objective, check_in_unit_interval, check_sizes
from lit_splitmask.optim import half_cosine


class MoCoV3(Objective):
    """Contrastive learning with a momentum encoder.

    Its losses: ``loss`` (2τ times InfoNCE, summed over both directions) and ``contrast_accuracy`` in [0, 1].

    Args:
        backbone: The encoder; its patch projection is initialised as in the paper and frozen. The original has fixed sin-cos
            positions, a CLS token and, for ViT-S, 12 heads; without a CLS token, patch features are pooled.
        hidden_dim: Width of the hidden layers of projector and predictor.
        output_dim: Dimensions E of a key.
        temperature: Temperature τ.
        momentum: Momentum of the momentum encoder at the start; it rises to 1 along half a cosine.

    Raises:
        UserError: ``hidden_dim`` or ``output_dim`` is below 1; ``momentum`` is outside [0, 1]; or ``temperature`` is not
            positive.

    Example:
        >>> import torch
        >>> from lit_splitmask.models import ViT, ViTConfig
        >>> from lit_splitmask.objectives import MoCoV3
        >>> vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32))
        >>> mocov3 = MoCoV3(vit, hidden_dim=32, output_dim=16)
        >>> list(mocov3({"crops": [torch.randn(4, 3, 32, 32) for _ in range(2)]}, torch.Generator()))
        ['loss', 'contrast_accuracy']
    """

    num_crops = 2
    least_batch = 2
    least_per_process = 2  # batch norm
    deciding_signals = ("linear", "knn")  # RankMe fell while it got better: docs/overfitting.md

    def __init__(
        self,
        backbone: ViT,
        *,
        hidden_dim: int = 4096,
        output_dim: int = 256,
        temperature: float = 0.2,
        momentum: float = 0.99,
    ) -> None:
        super().__init__(backbone)
        check_sizes(hidden_dim=hidden_dim, output_dim=output_dim)
        check_in_unit_interval(momentum=momentum)
        if temperature <= 0:
            raise UserError(f"temperature is {temperature}; it must be positive.")
        projection = backbone.patch_embed.proj
        nn.init.xavier_uniform_(projection.weight.view(len(projection.weight), -1))
        nn.init.zeros_(projection.bias)
        projection.requires_grad_(False)
        self.projector = batch_norm_mlp([backbone.embed_dim, hidden_dim, hidden_dim, output_dim])
        self.predictor = batch_norm_mlp([output_dim, hidden_dim, output_dim])
        self.teacher_backbone, self.teacher_projector = Teacher(backbone), Teacher(self.projector)
        self.temperature, self.momentum = temperature, momentum

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        crops = torch.cat(batch["crops"][:2])
        queries = [self.predictor(self.projector(pooled)) for pooled in self.backbone.pooled(crops).chunk(2)]
        with torch.no_grad():
            keys = [self.teacher_projector(pooled) for pooled in self._teacher.pooled(crops).chunk(2)]
        one, accuracy_one = self._contrast(queries[0], keys[1])
        two, accuracy_two = self._contrast(queries[1], keys[0])
        return {"loss": one + two, "contrast_accuracy": (accuracy_one + accuracy_two) / 2}

    @property
    def _teacher(self) -> ViT:
        network = self.teacher_backbone.network
        assert isinstance(network, ViT)
        return network

    def _contrast(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """2τ times the cross-entropy of each query's own key among the keys of all processes, and the accuracy."""
        with torch.autocast(queries.device.type, enabled=False):
            queries, keys = F.normalize(queries.float(), dim=1), F.normalize(keys.float(), dim=1)
            logits = queries @ gather(keys).t() / self.temperature  # (B, W·B)
            labels = torch.arange(len(queries), device=queries.device) + rank() * len(queries)
            loss = 2 * self.temperature * F.cross_entropy(logits, labels)
            return loss, (logits.detach().argmax(dim=1) == labels).float().mean()

    def after_step(self, progress: float) -> None:
        """Moves the momentum encoder."""
        momentum = half_cosine(self.momentum, 1.0, progress)  # the published code does this before the next step
        self.teacher_backbone.follow(self.backbone, momentum)
        self.teacher_projector.follow(self.projector, momentum)
