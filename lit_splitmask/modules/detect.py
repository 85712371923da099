"""Detection and instance segmentation."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_splitmask import rle
from lit_splitmask.checkpoints import FORMAT, config_of, load_into, load_weights, read_safetensors, write_safetensors
from lit_splitmask.errors import UserError
from lit_splitmask.models.mask_rcnn import DetectorConfig, MaskRCNN
from lit_splitmask.models.vit import ViT, ViTConfig, config_as_dict
from lit_splitmask.modules.average_precision import CocoAP
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import derive_seed

log = logging.getLogger(__name__)

WARM_UP = 500 / (36 * 117_266 / 16)
"""500 steps of the 3× schedule on COCO's 117,266 images with objects, 16 a step (facts, 6.2)."""


class Detect(TrainModule):
    """Mask R-CNN over a ViT, or Faster R-CNN where the datamodule has boxes only (Table 4).

    The network is built when a trainer attaches a datamodule with boxes, by its classes.

    Args:
        weights: a pre-trained backbone (a file of this project or of timm); ``None``: random initialisation.
        keep_head: ``weights`` is a whole detector, as :meth:`save` writes it: to evaluate or predict with it.
        backbone: shape of the ViT; ``None``: that of ``weights``, or ViT-S/16 with fixed sin-cos positions.
        detector: the parts after the backbone.
        optim: optimizer and schedule; ``layer_decay`` is the layer-wise decay of the learning rate.
        drop_path: stochastic depth.
        seed: of the new layers, drop path and the sampling of anchors and regions.
    """

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
        loaded = load_weights(weights) if weights is not None and not keep_head else None
        state, info = _read_detector(weights) if keep_head else ({}, loaded.info if loaded else {})
        if keep_head:
            backbone, detector = ViTConfig(**info["backbone"]), DetectorConfig(**info["detector"])
        shape = backbone or (config_of(loaded) if loaded else ViTConfig(positions="sincos"))
        config = replace(shape, drop_path=drop_path).resolved()
        super().__init__(optim, seed, config.in_chans)
        if "pixel_mean" in info:
            self.set_statistics(info["pixel_mean"], info["pixel_std"])
        self.detector, self._config, self._weights = detector, config, loaded
        self.class_names: list[str] = []
        self.category_ids: list[int] = []
        self.network: MaskRCNN | None = None
        self.val_scores: CocoAP | None = None
        if keep_head:
            self.build(info["class_names"], masks=info["masks"])
            self.rcnn.load_state_dict(state)
            self.category_ids = info["category_ids"]

    @property
    def rcnn(self) -> MaskRCNN:
        """The network."""
        assert self.network is not None, "the network is built in setup()"
        return self.network

    @property
    def vit(self) -> ViT:
        return self.rcnn.vit

    def setup(self, stage: str) -> None:
        names, masks = list(getattr(self.data, "class_names", None) or []), getattr(self.data, "masks", None)
        channels = getattr(self.data, "channels", None)
        if channels is not None and self.network is None and self._weights is None:
            self._config, self.in_chans = replace(self._config, in_chans=channels), channels
        super().setup(stage)
        if masks is None or not (names or self.network):
            raise UserError(
                "Detection needs images with boxes: give a datamodule of them, CocoDetection for a folder in COCO's format."
            )
        if self.network is None:
            self.build(names, masks=masks)
            self.category_ids = list(getattr(self.data, "category_ids", self.category_ids))
        if names and (self.class_names, self.rcnn.with_masks) != (names, masks):
            raise UserError(
                f"The detector knows the classes {', '.join(self.class_names)} {_with(self.rcnn.with_masks)}, but the images "
                f"have {', '.join(names)} {_with(masks)}: give images with the same, or train a detector for them."
            )
        self._check_images()

    def _check_images(self) -> None:
        patch = self.vit.config.patch_size
        if hasattr(self.data, "smallest_image"):
            name, side = self.data.smallest_image()
            if side < patch:
                raise UserError(
                    f"The image {name} is {side} px high or wide (as stored, or when resized to data.image_size and max_size), "
                    f"less than a patch of {patch} px: take it out, crop it, or choose a smaller patch size."
                )

    def build(self, class_names: list[str], *, masks: bool = True) -> None:
        """Makes the network for these classes and loads the weights; :meth:`setup` does it if it is not done.

        Raises:
            UserError: The weights do not fit the backbone.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "initial weights"))
            vit = ViT(self._config)
            if self._weights is not None:
                load_into(vit, self._weights)
                _say_what_positions_cost(vit, self._weights.source)
            self.network = MaskRCNN(vit, len(class_names), config=self.detector, masks=masks)
        self._weights, self.class_names = None, class_names
        self.category_ids = list(range(1, len(class_names) + 1))
        self.val_scores = CocoAP(masks)

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
        summary = self.val_scores.summary(self.class_names)
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
        found: list[dict[str, Any]] = self(batch["image"], batch["size"])
        for one in found:
            if "masks" in one:
                one["masks"] = rle.encode(one["masks"])
        return [
            {key: value.cpu() if isinstance(value, Tensor) else value for key, value in one.items()} for one in found
        ]

    def save(self, path: str | Path) -> None:
        """Writes the whole detector as safetensors, which ``Detect(path, keep_head=True)`` reads."""
        info = {
            "backbone": config_as_dict(self.vit.config),
            "detector": asdict(self.detector),
            "class_names": self.class_names,
            "category_ids": self.category_ids,
            "masks": self.rcnn.with_masks,
            "pixel_mean": self.pixel_mean.tolist(),
            "pixel_std": self.pixel_std.tolist(),
        }
        write_safetensors(path, self.rcnn.state_dict(), {FORMAT: json.dumps(info), "format": "pt"})


def _read_detector(path: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A whole detector's state and description."""
    if path is None:
        raise UserError("keep_head needs a trained detector: give its file as weights.")
    state, metadata = read_safetensors(path)
    info = json.loads(metadata.get(FORMAT, "{}"))
    if "detector" not in info:
        raise UserError(f"keep_head needs a trained detector, and {path} is none: give a detector.safetensors.")
    return state, info


def _say_what_positions_cost(vit: ViT, source: str) -> None:
    config = vit.config
    if config.positions == "sincos":
        log.info("%s has fixed sin-cos positions, which are computed for every image size: nothing is lost.", source)
    else:
        log.warning(
            "%s has learned positions of %d×%d patches, which are interpolated to each image's size: what they have learned fits "
            "less the more the size differs. Pre-train with backbone.positions=sincos to lose nothing (Section 5.2.1).",
            source,
            *vit.grid,
        )


def _with(masks: bool) -> str:
    return "with masks" if masks else "without masks"
