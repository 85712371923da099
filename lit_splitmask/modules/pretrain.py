"""Pre-training with any objective."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_splitmask.distributed import alone
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.objective_host import TrainsObjective
from lit_splitmask.objectives.base import Objective
from lit_splitmask.objectives.splitmask import SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import derive_seed, generator_for


class Pretrain(TrainsObjective):
    """Trains a backbone with a pre-training objective.

    Args:
        objective: Makes the objective from the backbone, such as the class :class:`SplitMask`.
        backbone: Shape of the ViT.
        optim: Optimizer and schedule.
        seed: Seed of the initial weights and of everything random in the training steps.

    Raises:
        UserError: The shape of the backbone is not valid, or the objective does not accept it or its own arguments.

    Example:
        >>> shape = ViTConfig(embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)
        >>> module = Pretrain(backbone=shape)
        >>> module.features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 32])
    """

    def __init__(
        self,
        objective: Callable[[ViT], Objective] = SplitMask,
        *,
        backbone: ViTConfig = ViTConfig(drop_path=0.1),  # noqa: B008 (frozen)
        optim: OptimConfig = OptimConfig(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__(optim, seed, backbone.in_chans)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            self.objective = objective(ViT(backbone))

    @property
    def hosted(self) -> Objective:
        return self.objective

    @property
    def vit(self) -> ViT:
        return self.objective.kept

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.attach_objective()
        expected = self.data.image_size
        if expected is not None and expected != self.vit.config.image_size:
            raise UserError(
                f"The datamodule gives images of {expected} px, but the backbone was built for "
                f"{self.vit.config.image_size} px: set both to the same image_size."
            )
        if stage == "fit":
            self.check_objective()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        generator = generator_for(self.seed, "objective", *self.step_key(batch_idx))
        losses = self.objective_losses(self.training_views(batch), generator)
        self.check_finite(losses["loss"])
        self.log_dict(
            {f"train/{k}": v.detach() for k, v in losses.items()}, prog_bar=True, batch_size=len(batch["image"])
        )
        return losses["loss"]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Logs the losses on held-out images, with the same masks each time.

        Nothing is logged for objectives that need several crops, or the index of a training image.
        """
        if self.objective.num_crops > 1 or self.objective.needs_index:
            return
        with alone():
            losses = self.objective(self.views_of(batch), generator_for(self.seed, "held-out masks", batch_idx))
        values = {f"val/{k}": v for k, v in losses.items()}
        self.log_dict(values, sync_dist=self.trainer.world_size > 1, batch_size=len(batch["image"]))
