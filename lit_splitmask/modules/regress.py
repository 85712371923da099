"""Fine-tuning, or training from scratch, to predict a number."""

import copy
import logging
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection
from torchmetrics.regression import R2Score

from lit_splitmask.contract import regression_data
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.downstream import DownstreamModule
from lit_splitmask.optim import OptimConfig

log = logging.getLogger(__name__)

Loss = Literal["smooth_l1", "mse"]


class Regress(DownstreamModule):
    """A ViT with mean pooling, a norm and a linear head of one output, trained to predict a number for each image.

    The network learns the numbers minus the mean of the training images, divided by their standard deviation, so the
    learning rate does not depend on the unit. Predictions and scores are in the unit of the numbers: the mean absolute error
    (``val/mae``), the root mean squared error (``val/rmse``) and the coefficient of determination (``val/r2``: 1 is perfect, 0 is
    as good as always predicting the mean). The losses are those of the standardised numbers.

    Args:
        weights: A pre-trained backbone (a file of this project or of timm); ``None`` for random initialisation.
        keep_head: Use the head of ``weights`` too, to evaluate or predict with a trained regressor.
        backbone: Shape of the ViT; ``None`` for that of ``weights``, or ViT-S/16.
        loss: ``smooth_l1`` is squared up to one standard deviation and absolute beyond, so a few wrong numbers weigh little;
            ``mse`` is squared throughout.
        optim: Optimizer and schedule; ``layer_decay`` is the layer-wise decay of the learning rate.
        drop_path: Rate of stochastic depth.
        trained_blocks: Train the last blocks of the backbone only, this many, and what follows them: 0 for a frozen backbone,
            ``None`` for everything. Frozen blocks have no stochastic depth, and need weights.
        seed: Seed of the new layers and drop path.

    Attributes:
        test_pairs: The true number and the prediction of each image that this process tested.

    Raises:
        UserError: The weights cannot be read or do not fit the backbone; the shape of the backbone is not valid; ``keep_head`` is
            set without the weights of a trained regressor; ``loss`` is unknown; or ``trained_blocks`` is not a number of blocks,
            or is given without weights.

    Example:
        >>> shape = ViTConfig(embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)
        >>> module = Regress(backbone=shape)
        >>> module.build(1)  # a trainer does it, and takes mean and deviation of the training images
        >>> module(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2])
    """

    kind = "regressor"
    backbone_prefix = ""
    min_classes = 1
    needs_labels = True  # RegressionManifest leaves out images without one
    takes_numbers = True
    required_images = "images with a number each (a list: RegressionManifest)"
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        weights: str | None = None,
        *,
        keep_head: bool = False,
        backbone: ViTConfig | None = None,
        loss: Loss = "smooth_l1",
        optim: OptimConfig = OptimConfig(lr=4e-3, reference_batch=1024, warmup=0.2, min_lr=1e-6, layer_decay=0.65),  # noqa: B008
        drop_path: float = 0.1,
        trained_blocks: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            weights, backbone=backbone, optim=optim, drop_path=drop_path, seed=seed, trained_blocks=trained_blocks
        )
        if loss not in ("smooth_l1", "mse"):
            raise UserError(f"loss is {loss!r}, but must be smooth_l1 or mse.")
        self._loss = F.smooth_l1_loss if loss == "smooth_l1" else F.mse_loss
        self.register_buffer("target_mean", torch.tensor(0.0))
        self.register_buffer("target_std", torch.tensor(1.0))
        self.test_pairs: list[tuple[float, float]] = []
        if keep_head:
            self.restore()

    @property
    def vit(self) -> ViT:
        assert isinstance(self.network, ViT), "the network is built in setup()"
        return self.network

    @property
    def num_classes(self) -> int:
        """Number of outputs: one."""
        return self.vit.num_classes

    def setup(self, stage: str) -> None:
        """Builds the network, and takes mean and deviation of the training images, unless a trained regressor has its own.

        Raises:
            UserError: The datamodule gives no numbers, or training images that all have the same; or as in the base class.
        """
        numbers = regression_data(self.datamodule)
        if numbers is None and stage != "predict":
            raise UserError(
                f"Regress learns numbers, but {type(self.datamodule).__name__} gives none: use RegressionManifest "
                "(--data.manifest FILE.csv --data.target COLUMN), or give your datamodule train_targets."
            )
        is_new = self.network is None
        super().setup(stage)
        if stage != "fit" or not is_new:
            return
        assert numbers is not None
        targets = np.asarray(numbers.train_targets, dtype=np.float64)
        if not len(targets) or not targets.std() > 0:
            what = f"all have the number {targets[0]:g}" if len(targets) else "have no numbers"
            raise UserError(
                f"The training images {what}, so there is nothing to learn: give images of different numbers."
            )
        self.target_mean.fill_(targets.mean())
        self.target_std.fill_(targets.std())
        self.print(
            f"Training images: {len(targets):,} numbers from {targets.min():.6g} to {targets.max():.6g}, mean "
            f"{targets.mean():.6g}, standard deviation {targets.std():.4g}."
        )

    def check_images(self) -> None:
        """Checks the size of the images, and that there is no pool: its images have no numbers."""
        super().check_images()
        if self.data.pool:
            raise UserError(
                f"The images of data.pool ({', '.join(map(str, self.data.pool))}) have no numbers: leave data.pool out when "
                "fine-tuning, and give it to pretrain."
            )

    def accepts_classes(self, names: list[str]) -> bool:
        """Any single name; one that differs from the network's is logged, since it may be another quantity."""
        if names != self.class_names:
            log.warning("The network predicts %s; it is compared with %s.", *(self.class_names or ["?"]), *names)
        return True

    def exported_settings(self) -> dict[str, Any]:
        return {"mean": float(self.target_mean), "std": float(self.target_std)}

    def restore_settings(self, settings: dict[str, Any]) -> None:
        self.target_mean.fill_(settings["mean"])
        self.target_std.fill_(settings["std"])

    def make_network(self, config: ViTConfig, num_classes: int) -> ViT:
        """The ViT with a linear head."""
        network = ViT(config, num_classes)
        nn.init.trunc_normal_(network.get_parameter("head.weight"), std=2e-5)
        return network

    def after_building(self, num_classes: int) -> None:
        """Makes the metrics."""
        scores: dict[str, Any] = {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False), "r2": _R2()}
        self.val_scores = MetricCollection(scores, prefix="val/")
        self.test_scores = self.val_scores.clone(prefix="test/")

    def in_units(self) -> ViT:
        """A copy of the network whose head gives the numbers in their unit, as (B, 1)."""
        vit = copy.deepcopy(self.vit)
        with torch.no_grad():
            vit.get_parameter("head.weight").mul_(self.target_std)
            vit.get_parameter("head.bias").mul_(self.target_std).add_(self.target_mean)
        return vit

    def forward(self, images: Tensor) -> Tensor:
        """Predictions in the unit of the numbers: (B, C, H, W) uint8 -> (B,) float32."""
        return self._standardised(images) * self.target_std + self.target_mean

    def _standardised(self, images: Tensor) -> Tensor:
        output: Tensor = self.vit(self.normalise(images))
        return output.float()[:, 0]

    def _losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, the predictions and the true numbers, both minus the mean, whose digits would drown a small error."""
        predicted, numbers = self._standardised(batch["image"]), batch["label"].float() - self.target_mean
        return self._loss(predicted, numbers / self.target_std), predicted.detach() * self.target_std, numbers

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss, _, _ = self._losses(batch)
        self.log_training({"loss": loss}, len(batch["image"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        loss, predicted, numbers = self._losses(batch)
        self.val_scores.update(predicted, numbers)
        self.log_held_out({"loss": loss}, len(batch["image"]))
        self.log_dict(self.val_scores, on_epoch=True, prog_bar=True)

    def on_test_epoch_start(self) -> None:
        self.test_pairs.clear()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        _, predicted, numbers = self._losses(batch)
        self.test_scores.update(predicted, numbers)
        pairs = (numbers + self.target_mean).tolist(), (predicted + self.target_mean).tolist()
        self.test_pairs += zip(*pairs, strict=True)
        self.log_dict(self.test_scores, on_epoch=True)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Predictions (B,) in the unit of the numbers, and the images' indices (B,)."""
        return {"numbers": self(batch["image"]), "index": batch["index"]}


class _R2(R2Score):
    """torchmetrics' score; NaN for a single image, which it rejects."""

    def compute(self) -> Tensor:
        """The score; all processes have the same."""
        return super().compute() if int(self.total) > 1 else self.total.new_tensor(torch.nan, dtype=torch.float32)
