"""Detection and instance segmentation."""

import logging
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from lit_splitmask.annotations import rle
from lit_splitmask.checkpoints import Weights
from lit_splitmask.contract import detection_data
from lit_splitmask.errors import UserError
from lit_splitmask.models.mask_rcnn import DetectorConfig, MaskRCNN
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.average_precision import CocoAP
from lit_splitmask.modules.downstream import DownstreamModule
from lit_splitmask.optim import OptimConfig

log = logging.getLogger(__name__)

WARM_UP = 500 / (36 * 117_266 / 16)
"""500 steps of the 3× schedule on COCO's 117,266 images with objects, 16 a step (Mask R-CNN's usual warm-up)."""


OF_EVALUATION = ("score_threshold", "nms_threshold", "detections")
"""Settings of a detector that a trained one may be given anew."""


class Detect(DownstreamModule):
    """Mask R-CNN over a ViT, or Faster R-CNN where the datamodule has boxes only (Table 4).

    The network is built when a trainer attaches a datamodule with boxes, by its classes.

    Args:
        weights: a pre-trained backbone (a file of this project or of timm); ``None``: random initialisation.
        keep_head: ``weights`` is a trained detector's exported file: to evaluate or predict with all of it.
        backbone: shape of the ViT; ``None``: that of ``weights``, or ViT-S/16 with fixed sin-cos positions.
        detector: the parts after the backbone; with ``keep_head``, only how detections are chosen counts.
        optim: optimizer and schedule; ``layer_decay`` is the layer-wise decay of the learning rate.
        drop_path: stochastic depth.
        seed: of the new layers, drop path and the sampling of anchors and regions.
    """

    kind = "detector"
    backbone_prefix = "backbone.pyramid.vit."
    needs = "images with boxes (CocoDetection, for a folder in COCO's format)"
    least_classes = 1
    default_backbone = ViTConfig(positions="sincos")

    def __init__(
        self,
        weights: str | None = None,
        *,
        keep_head: bool = False,
        backbone: ViTConfig | None = None,
        detector: DetectorConfig = DetectorConfig(),  # noqa: B008 (frozen)
        optim: OptimConfig = OptimConfig(lr=1e-4, reference_batch=16, warmup=WARM_UP, schedule="steps"),  # noqa: B008
        drop_path: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(weights, backbone=backbone, optim=optim, drop_path=drop_path, seed=seed)
        self.detector, self.masks = detector, True
        self.category_ids: list[int] = []
        self.val_scores: CocoAP | None = None
        if keep_head:
            self.restore()

    @property
    def rcnn(self) -> MaskRCNN:
        """The network."""
        assert isinstance(self.network, MaskRCNN), "the network is built in setup()"
        return self.network

    @property
    def vit(self) -> ViT:
        return self.rcnn.vit

    @property
    def num_classes(self) -> int:
        """K."""
        return self.rcnn.num_classes

    def setup(self, stage: str) -> None:
        data = detection_data(self.datamodule)
        if data is None:
            raise UserError(f"Detection needs {self.needs}: give a datamodule of them.")
        masks = data.masks
        if self.network is None:
            self.masks = masks
        elif self.masks != masks and data.class_names:
            raise UserError(
                f"The detector was trained {_with(self.masks)}, but the images are read {_with(masks)}: set data.masks to "
                f"{str(self.masks).lower()}, or train a detector for them."
            )
        super().setup(stage)
        if not self.category_ids:
            self.category_ids = list(data.category_ids or self._usual_ids())

    def _usual_ids(self) -> list[int]:
        return list(range(1, self.num_classes + 1))

    def fit_backbone(self) -> None:
        """Nothing: positions are fitted to each image."""

    def check_images(self) -> None:
        patch, data = self.vit.config.patch_size, detection_data(self.datamodule)
        if data is not None:
            name, side = data.smallest_image()
            if side < patch:
                raise UserError(
                    f"The image {name} is {side} px high or wide (as stored, or when resized to data.image_size and max_size), "
                    f"less than a patch of {patch} px: take it out, crop it, or choose a smaller patch size."
                )

    def make_network(self, config: ViTConfig, num_classes: int) -> MaskRCNN:
        """Mask R-CNN, or Faster R-CNN without masks."""
        return MaskRCNN(ViT(config), num_classes, config=self.detector, masks=self.masks)

    def after_building(self, num_classes: int) -> None:
        """Makes the metric."""
        self.val_scores = CocoAP(self.masks)

    def about(self) -> dict[str, Any]:
        ids = self.category_ids or self._usual_ids()
        return {"config": asdict(self.detector), "masks": self.masks, "category_ids": ids}

    def take(self, about: dict[str, Any]) -> None:
        usual = DetectorConfig()
        asked = {name: getattr(self.detector, name) for name in OF_EVALUATION}
        asked = {name: value for name, value in asked.items() if value != getattr(usual, name)}
        self.detector, self.masks = replace(DetectorConfig(**about["config"]), **asked), about["masks"]
        self.category_ids = about["category_ids"]

    def tell_of_positions(self, weights: Weights) -> None:
        """Says what positions cost where images differ in size."""
        if self.vit.config.positions == "sincos":
            log.info(
                "%s has fixed sin-cos positions, which are computed for every image size: nothing is lost.",
                weights.source,
            )
        else:
            log.warning(
                "%s has learned positions of %d×%d patches, which are interpolated to each image's size: what they have learned "
                "fits less the more the size differs. Pre-train with backbone.positions=sincos to lose nothing (Section 5.2.1).",
                weights.source,
                *self.vit.grid,
            )

    def forward(self, images: list[Tensor], sizes: list[tuple[int, int]] | None = None) -> list[dict[str, Tensor]]:
        """What is in images.

        Args:
            images: (C, H, W) uint8 each, of any sizes.
            sizes: Heights and widths that the result is scaled to; by default the images' own.

        Returns:
            For each ``boxes`` (n, 4) of left, top, right, bottom, ``scores``, ``labels``, and ``masks`` (n, H, W) bool.
        """
        own = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        return self.rcnn.detect([self.normalise(image) for image in images], sizes or own)

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Leaves the truth of evaluation where it is: only the CPU compares with it, and not every device has float64."""
        kept = {name: batch[name] for name in ("truth", "size") if name in batch}
        moved = {name: value for name, value in batch.items() if name not in kept}
        return dict(super().transfer_batch_to_device(moved, device, dataloader_idx)) | kept

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        losses = self.rcnn.losses([self.normalise(image) for image in batch["image"]], batch["target"])
        loss = torch.stack(list(losses.values())).sum()
        self.check_finite(loss)
        values = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(values, batch_size=len(batch["image"]))
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        assert self.val_scores is not None
        self.val_scores.update(self._found(batch), batch["truth"], batch["index"].tolist())

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: str) -> None:
        assert self.val_scores is not None
        summary = self.val_scores.summary(self.class_names or [])
        self.val_scores.reset()
        for name, value in summary.items():  # the same on every process
            # COCO's own numbers have a precision of 1e-7; float32, which logging uses, keeps it
            shown = name in ("box/AP", "mask/AP")
            self.log(f"{stage}/{name}", value, prog_bar=shown, batch_size=1, sync_dist=self.trainer.world_size > 1)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """``index`` (B,), and ``found``: each image's ``boxes``, ``scores``, ``labels``, and ``masks`` as run lengths."""
        return {"found": self._found(batch), "index": batch["index"]}

    def _found(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Detections on the original images, on the CPU, masks as run lengths: pixels of a whole set would be too many."""
        images = [self.normalise(image) for image in batch["image"]]
        found: list[dict[str, Any]] = self.rcnn.detect(images, batch["size"], lambda masks, _: rle.encode(masks))
        return [
            {key: value.cpu() if isinstance(value, Tensor) else value for key, value in one.items()} for one in found
        ]


def _with(masks: bool) -> str:
    return "with masks" if masks else "without masks"
