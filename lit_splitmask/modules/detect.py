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
"""500 steps of the 3× schedule on COCO's 117,266 images with objects, 16 images per step (Mask R-CNN's usual warm-up)."""

EVALUATION_SETTINGS = ("score_threshold", "nms_threshold", "detections")
"""Settings of a detector that can be changed after its training."""


class Detect(DownstreamModule):
    """Mask R-CNN over a ViT, or Faster R-CNN if the datamodule has boxes only (Table 4).

    The network is built when a trainer attaches a datamodule with boxes, for the classes of that datamodule.

    Args:
        weights: A pre-trained backbone (a file of this project or of timm); ``None`` for random initialisation.
        keep_head: Use all of ``weights``, the exported file of a trained detector, to evaluate or predict with it.
        backbone: Shape of the ViT; ``None`` for that of ``weights``, or ViT-S/16 with fixed sin-cos positions.
        detector: The parts after the backbone; with ``keep_head``, only the settings that choose detections are used.
        optim: Optimizer and schedule; ``layer_decay`` is the layer-wise decay of the learning rate.
        drop_path: Rate of stochastic depth.
        trained_blocks: Train the last blocks of the backbone only, this many, and what follows them: 0 for a frozen backbone,
            ``None`` for everything. Frozen blocks have no stochastic depth, and need weights.
        seed: Seed of the new layers, drop path and the sampling of anchors and regions.

    Raises:
        UserError: The weights cannot be read or do not fit the backbone; the shape of the backbone is not valid; ``keep_head``
            is set without the weights of a trained detector; or ``trained_blocks`` is not a number of blocks, or is given without
            weights.

    Example:
        >>> shape = ViTConfig(embed_dim=32, depth=4, num_heads=2, patch_size=8, image_size=64, positions="sincos")
        >>> module = Detect(backbone=shape, detector=DetectorConfig(channels=8, box_features=8))
        >>> module.build(num_classes=3)  # a trainer does it with the classes of the datamodule
        >>> sorted(module.eval()([torch.zeros(3, 60, 70, dtype=torch.uint8)])[0])
        ['boxes', 'labels', 'masks', 'scores']
    """

    kind = "detector"
    backbone_prefix = "backbone.pyramid.vit."
    required_images = "images with boxes (CocoDetection, for a folder in COCO's format)"
    min_classes = 1
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
        trained_blocks: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            weights, backbone=backbone, optim=optim, drop_path=drop_path, seed=seed, trained_blocks=trained_blocks
        )
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
        """Number of classes, K."""
        return self.rcnn.num_classes

    def setup(self, stage: str) -> None:
        data = detection_data(self.datamodule)
        if data is None:
            raise UserError(f"Detection needs {self.required_images}: use a datamodule of such images.")
        masks = data.masks
        if self.network is None:
            self.masks = masks
        elif self.masks != masks and self.data.class_names:
            raise UserError(
                f"The detector was trained {_with(self.masks)}, but the images are read {_with(masks)}: set data.masks to "
                f"{str(self.masks).lower()}, or train a new detector."
            )
        if self.network is not None and self.class_names is not None and hasattr(self.datamodule, "use_classes"):
            self.datamodule.use_classes(self.class_names)  # a folder may lack classes, or order them differently
        if self.network is not None and stage == "predict" and hasattr(self.datamodule, "leave_out_smaller"):
            self.datamodule.leave_out_smaller(self.vit.config.patch_size)  # one small image must not stop the others
        super().setup(stage)
        if not self.category_ids:
            self.category_ids = list(data.category_ids or self._default_ids())

    def _default_ids(self) -> list[int]:
        return list(range(1, self.num_classes + 1))

    def match_image_size(self) -> None:
        """Does nothing: positions are computed for each image."""

    def check_images(self) -> None:
        patch, data = self.vit.config.patch_size, detection_data(self.datamodule)
        if data is not None:
            name, side = data.smallest_image()
            if side < patch:
                raise UserError(
                    f"The image {name} is {side} px high or wide (as stored, or when resized to data.image_size and max_size), "
                    f"less than a patch of {patch} px: remove it, crop it, or choose a smaller patch size."
                )

    def make_network(self, config: ViTConfig, num_classes: int) -> MaskRCNN:
        """Mask R-CNN, or Faster R-CNN without masks."""
        return MaskRCNN(ViT(config), num_classes, config=self.detector, masks=self.masks)

    def after_building(self, num_classes: int) -> None:
        """Makes the metric."""
        self.val_scores = CocoAP(self.masks)

    def exported_settings(self) -> dict[str, Any]:
        ids = self.category_ids or self._default_ids()
        return {"config": asdict(self.detector), "masks": self.masks, "category_ids": ids}

    def restore_settings(self, settings: dict[str, Any]) -> None:
        default = DetectorConfig()
        changed = {name: getattr(self.detector, name) for name in EVALUATION_SETTINGS}
        changed = {name: value for name, value in changed.items() if value != getattr(default, name)}
        self.detector, self.masks = replace(DetectorConfig(**settings["config"]), **changed), settings["masks"]
        self.category_ids = settings["category_ids"]

    def report_positions(self, weights: Weights) -> None:
        """Logs whether the positions suit images of different sizes."""
        if self.vit.config.positions == "sincos":
            log.info(
                "%s has fixed sin-cos positions, which are computed for every image size: nothing is lost.",
                weights.source,
            )
        else:
            log.warning(
                "%s has learned positions of %d×%d patches, which are interpolated to each image's size: the more the size "
                "differs, the less they fit. Pre-train with backbone.positions=sincos to lose nothing (Section 5.2.1).",
                weights.source,
                *self.vit.grid,
            )

    def forward(self, images: list[Tensor], sizes: list[tuple[int, int]] | None = None) -> list[dict[str, Tensor]]:
        """Detects objects in images.

        Args:
            images: Images (C, H, W) uint8 of any sizes.
            sizes: Heights and widths to which the results are scaled; by default those of the images.

        Returns:
            For each image ``boxes`` (n, 4) of left, top, right, bottom, ``scores``, ``labels``, and ``masks`` (n, H, W) bool.
        """
        own = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        return self.rcnn.detect([self.normalise(image) for image in images], sizes or own)

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Leaves the ground truth of evaluation on the CPU, which compares with it; some devices have no float64."""
        on_cpu = {name: batch[name] for name in ("truth", "size") if name in batch}
        moved = {name: value for name, value in batch.items() if name not in on_cpu}
        return dict(super().transfer_batch_to_device(moved, device, dataloader_idx)) | on_cpu

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        losses = self.rcnn.losses([self.normalise(image) for image in batch["image"]], batch["target"])
        loss = torch.stack(list(losses.values())).sum()
        self.log_training({**losses, "loss": loss}, len(batch["image"]), shown=["loss"])
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
        for name, value in summary.items():  # the same names on every process
            # Logging uses float32, whose precision suffices for COCO's numbers.
            shown = name in ("box/AP", "mask/AP")
            self.log(f"{stage}/{name}", value, prog_bar=shown, batch_size=1, sync_dist=self.trainer.world_size > 1)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """``index`` (B,), and ``found``: for each image ``boxes``, ``scores``, ``labels``, and ``masks`` as run lengths."""
        return {"found": self._found(batch), "index": batch["index"]}

    def _found(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Detections on the original images, on the CPU, with masks as run lengths: as pixels they would fill the memory."""
        images = [self.normalise(image) for image in batch["image"]]
        found: list[dict[str, Any]] = self.rcnn.detect(images, batch["size"], lambda masks, _: rle.encode(masks))
        return [
            {key: value.cpu() if isinstance(value, Tensor) else value for key, value in one.items()} for one in found
        ]


def _with(masks: bool) -> str:
    return "with masks" if masks else "without masks"
