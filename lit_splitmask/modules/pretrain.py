"""Pre-training with any objective."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lit_splitmask.checkpoints import Weights, config_of, load_into, load_weights, report_positions
from lit_splitmask.distributed import alone
from lit_splitmask.errors import UserError
from lit_splitmask.models.teacher import Teacher
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.base import NETWORK
from lit_splitmask.modules.objective_host import TrainsObjective
from lit_splitmask.objectives.base import Objective
from lit_splitmask.objectives.splitmask import SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import derive_seed, generator_for

log = logging.getLogger(__name__)

DEFAULT_BACKBONE = ViTConfig(drop_path=0.1)


class Pretrain(TrainsObjective):
    """Trains a backbone with a pre-training objective.

    Args:
        objective: Makes the objective from the backbone, such as the class :class:`SplitMask`.
        weights: File of weights to start from (see :func:`~lit_splitmask.checkpoints.load_weights`); None for random weights.
            Teachers start from them too, and their pixel statistics are used. The objective's other layers are new.
        backbone: Shape of the ViT; the default with ``weights`` is their shape.
        optim: Optimizer and schedule.
        seed: Seed of the initial weights and of everything random in the training steps.

    Raises:
        UserError: The shape of the backbone is not valid, the objective does not accept it or its own arguments, or the weights
            cannot be read or do not fit the backbone.

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
        weights: str | None = None,
        backbone: ViTConfig = DEFAULT_BACKBONE,
        optim: OptimConfig = OptimConfig(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        loaded = load_weights(weights) if weights is not None else None
        if loaded is not None and backbone == DEFAULT_BACKBONE:
            backbone = replace(config_of(loaded), drop_path=backbone.drop_path)
        super().__init__(optim, seed, backbone.in_chans)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            self.objective = objective(ViT(backbone))
        if loaded is not None:
            self._start_from(loaded)

    def _start_from(self, weights: Weights) -> None:
        """Loads weights into the backbone and its teacher, once the objective has initialised its own parts of them."""
        given, shape = config_of(weights), self.objective.backbone.config
        if (
            given.embed_dim == shape.embed_dim and given.num_heads != shape.num_heads
        ):  # the tensors have the same shapes
            raise UserError(
                f"{weights.source} has {given.num_heads} attention heads, but the backbone has {shape.num_heads}: leave out "
                "backbone.num_heads."
            )
        teachers = [part.network for part in self.objective.modules() if isinstance(part, Teacher)]
        for vit in (self.objective.backbone, *(network for network in teachers if isinstance(network, ViT))):
            load_into(vit, weights)
        self.take_statistics(weights)
        report_positions(self.objective.backbone, weights)
        new = sum(p.numel() for p in self.objective.parameters() if p.requires_grad) - sum(
            p.numel() for p in self.objective.backbone.parameters() if p.requires_grad
        )
        token = ", and the CLS token" if shape.class_token and not given.class_token else ""
        log.info(
            "The backbone starts from %s (%s); %s's own layers are new (%s weights)%s.",
            weights.source,
            f"width {shape.embed_dim}, depth {shape.depth}, patches of {shape.patch_size} px",
            type(self.objective).__name__,
            f"{new:,}",
            token,
        )

    @property
    def hosted(self) -> Objective:
        return self.objective

    @property
    def vit(self) -> ViT:
        return self.objective.kept

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores what the objective was told about the images, in addition to what the base class stores."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[NETWORK] = {"num_classes": self.data.num_classes, "num_train_images": self.data.num_train_images}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Without a trainer, as in ``load_from_checkpoint``, also makes the objective's layers that depend on the images."""
        super().on_load_checkpoint(checkpoint)
        if self._trainer is None:
            about = checkpoint.get(NETWORK) or {}
            self._objective.attach(about.get("num_classes") or 0, about.get("num_train_images") or 0)

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
        self.log_training(losses, len(batch["image"]))
        return losses["loss"]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Logs the losses on held-out images, with the same masks each time.

        Nothing is logged for objectives that need several crops, or the index of a training image.
        """
        if self.objective.num_crops > 1 or self.objective.needs_index:
            return
        with alone():
            losses = self.objective(self.views_of(batch), generator_for(self.seed, "held-out masks", batch_idx))
        self.log_held_out(losses, len(batch["image"]))
