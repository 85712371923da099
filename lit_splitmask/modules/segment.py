"""Fine-tuning, or training from scratch, for semantic segmentation.

K classes; label maps hold class indices, and IGNORED for pixels without a label.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from lit_splitmask.annotations.label_maps import to_values
from lit_splitmask.contract import segmentation_data
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED, pixel_loss
from lit_splitmask.models.pyramid import Pyramid
from lit_splitmask.models.sliding import sliding_logits
from lit_splitmask.models.upernet import UperNet
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.downstream import DownstreamModule
from lit_splitmask.modules.label_scores import ImageCounts, class_iou, scores_of
from lit_splitmask.optim import OptimConfig


class Segment(DownstreamModule):
    """UperNet over a ViT: trained on crops, evaluated by sliding windows (BEiT's recipe for ADE20K; Table 5).

    Windows are as large as the crops, with a stride of two thirds of their side. Scores come from one confusion matrix over all
    labelled pixels of all images and processes. The network is built in the constructor if ``num_classes`` is given, otherwise
    when a trainer attaches a datamodule.

    Args:
        weights: A pre-trained backbone (a file of this project or of timm); ``None`` for random initialisation.
        keep_head: Use the head, the class names and the channels of ``weights`` too, to evaluate or predict with a trained
            segmenter.
        backbone: Shape of the ViT; ``None`` for that of ``weights``, or ViT-S/16. Its image size is that of the crops.
        num_classes: Number of classes; ``None`` for that of the datamodule.
        channels: Channels of the head; 768 in BEiT's recipe for ViT-B, 512 in XCiT's.
        dropout: Dropout before both classifiers.
        auxiliary_weight: Weight of the auxiliary head's loss.
        optim: Optimizer and schedule.
        drop_path: Rate of stochastic depth.
        trained_blocks: Train the last blocks of the backbone only, this many, and what follows them: 0 for a frozen backbone,
            ``None`` for everything. Frozen blocks have no stochastic depth, and need weights.
        seed: Seed of the new layers, dropout and drop path.

    Raises:
        UserError: The weights cannot be read or do not fit the backbone; the shape of the backbone is not valid; ``keep_head`` is
            set without the weights of a trained segmenter; ``num_classes`` is less than 2; or ``trained_blocks`` is
            not a number of blocks, or is given without weights.

    Example:
        >>> shape = ViTConfig(embed_dim=32, depth=4, num_heads=2, patch_size=8, image_size=32)
        >>> module = Segment(backbone=shape, num_classes=3, channels=8)
        >>> module.eval()(torch.zeros(1, 3, 40, 56, dtype=torch.uint8)).shape
        torch.Size([1, 3, 40, 56])
    """

    kind = "segmenter"
    backbone_prefix = "pyramid.vit."
    required_images = "images with label maps of two or more classes in addition to data.void (SegmentationFolder)"

    def __init__(
        self,
        weights: str | None = None,
        *,
        keep_head: bool = False,
        backbone: ViTConfig | None = None,
        num_classes: int | None = None,
        channels: int = 512,
        dropout: float = 0.1,
        auxiliary_weight: float = 0.4,
        optim: OptimConfig = OptimConfig(  # noqa: B008
            lr=7e-4, reference_batch=16, warmup=1500 / 160_000, min_lr=0.0, layer_decay=0.65, schedule="poly"
        ),
        drop_path: float = 0.1,
        trained_blocks: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            weights, backbone=backbone, optim=optim, drop_path=drop_path, seed=seed, trained_blocks=trained_blocks
        )
        self.channels, self.dropout, self.auxiliary_weight = channels, dropout, auxiliary_weight
        self.void: int | None = None
        self.short_side: int | None = None
        self.values: list[int] | None = None
        self.colours: list[list[int]] | None = None
        if keep_head:
            self.restore()
        elif num_classes is not None:
            self.build(num_classes)

    @property
    def segmenter(self) -> UperNet:
        """The network, once it is built."""
        assert isinstance(self.network, UperNet), "the network is built in setup()"
        return self.network

    @property
    def vit(self) -> ViT:
        return self.segmenter.pyramid.vit

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.segmenter.num_classes

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = segmentation_data(self.datamodule)
        if self.void is None and data is not None:
            self.void = data.void
            self.short_side = getattr(data, "short_side", None)
            self.values = getattr(data, "map_values", None)
            self.colours = getattr(data, "map_colours", None)

    @property
    def map_values(self) -> list[int]:
        """The value of each class in label maps: 0, 1, 2, … without void, unless the training maps had others."""
        return self.values or to_values(np.arange(self.num_classes), self.void).tolist()

    def check_images(self) -> None:
        super().check_images()
        patch, data = self.vit.config.patch_size, segmentation_data(self.datamodule)
        if data is None:
            return
        name, side = data.smallest_image()
        if side < patch:
            raise UserError(
                f"The image {name} has a side of {side} px, which is less than a patch ({patch} px): remove it, "
                "enlarge it, or set data.short_side, to which all images are scaled."
            )

    def accepts_classes(self, names: list[str]) -> bool:
        """Whether the names are the same, or one of them is just the values of the classes in the maps."""
        return names == self.class_names or _are_numbers(names) or _are_numbers(self.class_names or [])

    def make_network(self, config: ViTConfig, num_classes: int) -> UperNet:
        """UperNet over the pyramid of a ViT."""
        return UperNet(Pyramid(ViT(config)), num_classes, channels=self.channels, dropout=self.dropout)

    def after_building(self, num_classes: int) -> None:
        """Makes the metrics."""
        self.val_confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED, validate_args=False)
        self.test_confusion = self.val_confusion.clone()
        self.test_counts = ImageCounts(num_classes)
        self.val_loss = MeanMetric()

    def exported_settings(self) -> dict[str, Any]:
        settings = {"channels": self.channels, "void": self.void, "values": self.values, "colours": self.colours}
        settings["short_side"] = self.short_side
        return {name: value for name, value in settings.items() if value is not None or name == "void"}

    def restore_settings(self, settings: dict[str, Any]) -> None:
        self.channels, self.void = settings["channels"], settings["void"]
        self.values, self.colours = settings.get("values"), settings.get("colours")
        self.short_side = settings.get("short_side")

    def forward(self, images: Tensor) -> Tensor:
        """Logits of whole images: (1, C, H, W) uint8 -> (1, K, H, W) float32, by sliding windows."""
        window = self.vit.config.image_size
        return sliding_logits(
            self.segmenter,
            self.normalise(images),
            window=window,
            stride=max(1, window * 2 // 3),
            patch_size=self.vit.config.patch_size,
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits, auxiliary = self.segmenter.with_auxiliary(self.normalise(batch["image"]))
        target = batch["map"].long()
        main = pixel_loss(logits, target)
        total = main + self.auxiliary_weight * pixel_loss(auxiliary, target)
        self.log_training({"loss": main, "total": total}, len(target), shown=["loss"], checked="total")
        return total

    def logits_at(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits at the size of the image on disk, which is that of its map: (1, K, H, W) float32."""
        logits = self(batch["image"])
        size = tuple(batch["size"][0].tolist())
        if logits.shape[-2:] == size:
            return logits
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits, target = self.logits_at(batch), batch["map"].long()
        num_labelled = (target != IGNORED).sum()
        if num_labelled:
            loss = F.cross_entropy(logits, target, ignore_index=IGNORED)
            self.val_loss.update(loss, num_labelled)
        self.val_confusion.update(logits.argmax(dim=1), target)

    def on_validation_epoch_end(self) -> None:
        """Logs the mean loss per pixel, mIoU and pixel accuracy over all processes."""
        scores = scores_of(self.val_confusion.compute())
        several = self.trainer.world_size > 1  # the values are equal everywhere, but Lightning requires their mean
        self.log("val/loss", self.val_loss.compute(), sync_dist=several)
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, prog_bar=True, sync_dist=several)
        self.val_confusion.reset()
        self.val_loss.reset()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        predicted, target = self.logits_at(batch).argmax(dim=1), batch["map"].long()
        self.test_confusion.update(predicted, target)
        self.test_counts.update(predicted, target)

    def on_test_epoch_end(self) -> None:
        """Logs the scores and the IoU of each class; rows of ``confusion`` are true classes, columns predicted ones.

        ``image_counts`` are those of :class:`ImageCounts`.
        """
        self.confusion, self.image_counts = self.test_confusion.compute(), self.test_counts.compute()
        self.test_confusion.reset()
        self.test_counts.reset()
        several = self.trainer.world_size > 1
        scores = {f"test/{name}": value for name, value in scores_of(self.confusion).items()}
        self.log_dict(scores, sync_dist=several)
        for name, value in zip(self.class_names or [], class_iou(self.confusion), strict=True):
            if torch.isfinite(value):
                self.log(f"test/iou/{name}", value, sync_dist=several)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Class of each pixel (1, H, W) int16, and index of the image (1,)."""
        return {"map": self.logits_at(batch).argmax(dim=1).short(), "index": batch["index"]}


def _are_numbers(names: list[str]) -> bool:
    return all(name.isdecimal() for name in names)
