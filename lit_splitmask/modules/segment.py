"""Fine-tuning, or training from scratch, for semantic segmentation.

K classes; label maps hold class indices, and IGNORED where there is no label.
"""

import logging
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from lit_splitmask.checkpoints import Weights, config_of, load_into, load_weights
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED, pixel_loss
from lit_splitmask.models.pyramid import Pyramid
from lit_splitmask.models.sliding import sliding_logits
from lit_splitmask.models.upernet import UperNet
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.modules.label_scores import class_iou, scores_of
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import derive_seed

log = logging.getLogger(__name__)

HEAD = "segmenter."
"""What the names of the head's tensors begin with, in a file that holds the backbone's under timm's names."""
_BACKBONE = "pyramid.vit."


class Segment(TrainModule):
    """UperNet over a ViT: trained on crops, evaluated by sliding windows (BEiT's recipe for ADE20K; Table 5).

    Windows are as large as the crops and two thirds of that apart. Scores are those of one confusion matrix over all labelled
    pixels of all images and processes. The network is built when a trainer attaches a datamodule, or at once if
    ``num_classes`` is given.

    Args:
        weights: a pre-trained backbone (a file of this project or of timm); ``None``: random initialisation.
        keep_head: use the head, the class names and the channels of ``weights`` too, to evaluate or predict with it.
        backbone: shape of the ViT; ``None``: that of ``weights``, or ViT-S/16. Its image size is that of the crops.
        num_classes: classes; ``None``: the datamodule's.
        channels: of the head; 768 in BEiT's recipe for ViT-B, 512 in XCiT's.
        dropout: before both classifiers.
        auxiliary_weight: of the auxiliary head's loss.
        optim: optimizer and schedule.
        drop_path: stochastic depth.
        seed: of the new layers, dropout and drop path.
    """

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
        seed: int = 0,
    ) -> None:
        loaded = load_weights(weights) if weights is not None else None
        config = replace(backbone or config_of(loaded), drop_path=drop_path).resolved()
        super().__init__(optim, seed, config.in_chans)
        if loaded is not None and "pixel_mean" in loaded.info:
            self.set_statistics(loaded.info["pixel_mean"], loaded.info["pixel_std"])
        self.channels, self.dropout, self.auxiliary_weight = channels, dropout, auxiliary_weight
        self._config, self._weights = config, loaded
        self.class_names: list[str] | None = None
        self.void: int | None = None
        self.network: UperNet | None = None
        if keep_head:
            self._restore(weights)
        elif num_classes is not None:
            self.build(num_classes)

    @property
    def segmenter(self) -> UperNet:
        """The network, once it is built."""
        assert self.network is not None, "the network is built in setup()"
        return self.network

    @property
    def vit(self) -> ViT:
        return self.segmenter.pyramid.vit

    @property
    def num_classes(self) -> int:
        """K."""
        return self.segmenter.num_classes

    def setup(self, stage: str) -> None:
        """Builds the network for the datamodule's classes, channels and crops.

        Raises:
            UserError: The images or their classes do not fit the network.
        """
        channels = getattr(self.data, "channels", None)
        if channels is not None and self.network is None:
            self._config = replace(self._config, in_chans=channels)
            self.in_chans = channels
        super().setup(stage)
        num_classes, image_size = getattr(self.data, "num_classes", None), getattr(self.data, "image_size", None)
        if self.network is None:
            if not num_classes:
                raise UserError(
                    "The number of classes is unknown: pass num_classes, or a datamodule of images with label maps "
                    "(SegmentationFolder)."
                )
            self._config = replace(self._config, image_size=image_size or self._config.image_size)
            self.build(num_classes)
        self._check_sizes(image_size)
        self._take_names(list(getattr(self.data, "class_names", None) or []))

    def _check_sizes(self, image_size: int | None) -> None:
        config = self.vit.config
        if image_size is not None and image_size != config.image_size:
            raise UserError(
                f"The datamodule gives crops of {image_size} px, but the network takes {config.image_size} px: give both the "
                "same image_size."
            )
        smallest = getattr(self.data, "smallest", None)
        if smallest is not None and smallest[0] < config.patch_size:
            raise UserError(
                f"The image {smallest[1]} has a side of {smallest[0]} px, which is less than a patch ({config.patch_size} px): "
                "take it out, enlarge it, or set data.short_side, to which all images are scaled."
            )

    def _take_names(self, names: list[str]) -> None:
        if names and len(names) != self.num_classes:
            raise UserError(f"The network has {self.num_classes} classes, but the label maps have {len(names)}.")
        if self.class_names is None:
            self.class_names = names or [str(number) for number in range(self.num_classes)]
            self.void = getattr(self.data, "void", None)
        elif names != self.class_names and not _is_unnamed(names) and not _is_unnamed(self.class_names):
            raise UserError(
                f"The network knows the classes {', '.join(self.class_names)}, but the label maps have {', '.join(names)}: "
                "give images with the same classes and data.classes, or without label maps."
            )

    def _restore(self, weights: str | None) -> None:
        """Builds the whole segmenter from its file."""
        loaded = self._weights
        about = loaded.info.get("segmenter") if loaded is not None else None
        if loaded is None or about is None:
            raise UserError(
                f"keep_head needs a trained segmenter, and {weights} is none: give a segmenter.safetensors."
            )
        self._weights, self.channels = None, about["channels"]
        self.class_names, self.void = list(loaded.info["class_names"]), about["void"]
        self.build(len(self.class_names))
        state = {
            name.removeprefix(HEAD) if name.startswith(HEAD) else f"{_BACKBONE}{name}": value
            for name, value in loaded.state.items()
        }
        self.segmenter.load_state_dict(state)

    def build(self, num_classes: int) -> None:
        """Makes the network for that many classes and loads the weights; :meth:`setup` does it if it is not done.

        Raises:
            UserError: There are too few classes, or the weights do not fit the backbone.
        """
        if num_classes < 2:
            raise UserError(f"Segmentation needs at least two classes, and the label maps have {num_classes}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "initial weights"))
            pyramid = Pyramid(ViT(self._config))
            self.network = UperNet(pyramid, num_classes, channels=self.channels, dropout=self.dropout)
        if self._weights is not None:
            load_into(self.vit, self._weights)
            _tell_of_positions(self.vit, self._weights)
        self._weights = None
        self.val_confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED, validate_args=False)
        self.test_confusion = self.val_confusion.clone()
        self.val_loss = MeanMetric()

    def exported(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The head, and what is needed to predict with it."""
        tensors = {
            HEAD + name: value for name, value in self.segmenter.state_dict().items() if not name.startswith(_BACKBONE)
        }
        about = {"channels": self.channels, "void": self.void}
        return tensors, {"class_names": self.class_names, "segmenter": about}

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
        loss = main + self.auxiliary_weight * pixel_loss(auxiliary, target)
        self.check_finite(loss)
        self.log("train/loss", main.detach(), prog_bar=True, batch_size=len(target))
        return loss

    def logits_at(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits at the size that the image had on disk, which is that of its map: (1, K, H, W) float32."""
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
        """Logs the loss of a pixel, mIoU and pixel accuracy over all processes."""
        scores = scores_of(self.val_confusion.compute())
        self.log("val/loss", self.val_loss.compute())
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, prog_bar=True)
        self.val_confusion.reset()
        self.val_loss.reset()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.test_confusion.update(self.logits_at(batch).argmax(dim=1), batch["map"].long())

    def on_test_epoch_end(self) -> None:
        """Logs the scores and each class's IoU; rows of ``confusion`` are true classes, columns predicted ones."""
        self.confusion = self.test_confusion.compute()
        self.test_confusion.reset()
        self.log_dict({f"test/{name}": value for name, value in scores_of(self.confusion).items()})
        for name, value in zip(self.class_names or [], class_iou(self.confusion), strict=True):
            if torch.isfinite(value):
                self.log(f"test/iou/{name}", value)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Class of each pixel, (1, H, W) int16, and the image's index, (1,)."""
        return {"map": self.logits_at(batch).argmax(dim=1).short(), "index": batch["index"]}


def _is_unnamed(names: list[str]) -> bool:
    """Whether classes go by the values that stand for them."""
    return all(name.isdecimal() for name in names)


def _tell_of_positions(vit: ViT, weights: Weights) -> None:
    """Says that learned positions were interpolated, where they were."""
    known = weights.state["pos_embed"].shape[1] - ("cls_token" in weights.state)
    if vit.config.positions == "learned" and known != vit.num_patches:
        log.info(
            "The learned positions of %s, of %d patches, are interpolated to the %d of a crop, which costs accuracy until they "
            "have adapted; a backbone pre-trained with positions=sincos fits any size.",
            weights.source,
            known,
            vit.num_patches,
        )
