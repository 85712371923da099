"""Mask R-CNN, or Faster R-CNN without masks, over the shared ViT (Section 5.2.1, Table 4); parts of torchvision's.

B images, D width of the ViT, P patch size in pixels, K classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from lit_splitmask.errors import UserError
from lit_splitmask.models.pyramid import Pyramid
from lit_splitmask.models.roi import Float32RPNHead, Heads, LevelRoIAlign, Proposals, Target, paste_masks
from lit_splitmask.models.vit import ViT

RATIOS = (0.5, 1.0, 2.0)
BOX_CELLS, MASK_CELLS = 7, 14


@dataclass(frozen=True)
class DetectorConfig:
    """The parts after the backbone; defaults are the reference's (Mask R-CNN of the Swin repository).

    Attributes:
        channels: of the feature pyramid, the proposals' and the mask head.
        box_features: width of the box head's two layers.
        anchor_scale: side of the anchors over the stride of their map.
        proposals: kept after suppression, in training and evaluation.
        anchors_per_image: of which the proposals' loss is made, half of them positive at most.
        regions_per_image: of which the heads' losses are made, a quarter of them positive at most.
        score_threshold: below which detections are left out.
        nms_threshold: overlap of two detections of a class above which the weaker one is left out.
        detections: most of an image.
        grad_checkpointing: computes the ViT's blocks once more in the backward pass, which keeps less in memory.
    """

    channels: int = 256
    box_features: int = 1024
    anchor_scale: float = 8.0
    proposals: int = 1000
    anchors_per_image: int = 256
    regions_per_image: int = 512
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections: int = 100
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "box_features", "anchor_scale", "proposals", "regions_per_image", "detections"):
            if getattr(self, name) <= 0:
                raise UserError(f"detector.{name} is {getattr(self, name)}; it must be positive.")
        for name in ("score_threshold", "nms_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"detector.{name} is {getattr(self, name)}; it must be in [0, 1).")


class LevelAnchors(AnchorGenerator):
    """Anchors at the strides of the maps; torchvision divides the image's side by a map's, which rounding makes another one.

    Args:
        strides: Of the maps, in pixels.
        scale: Side of the anchors over the stride.
    """

    def __init__(self, strides: list[int], scale: float) -> None:
        super().__init__(tuple((round(scale * stride),) for stride in strides), (RATIOS,) * len(strides))
        self.strides = strides

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """(N, 4) of left, top, right, bottom for each image, N over all maps."""
        like = feature_maps[0]
        self.set_cell_anchors(like.dtype, like.device)
        steps = [[torch.tensor(stride, device=like.device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors([list(one.shape[-2:]) for one in feature_maps], steps))
        return [anchors] * len(image_list.image_sizes)


class PyramidBackbone(nn.Module):
    """The ViT's four maps through a feature pyramid network, and a fifth, coarser one for the proposals.

    Args:
        vit: The backbone; its final norm has no part in the maps and is frozen, so that every parameter gets a gradient.
        channels: Of the result.
    """

    def __init__(self, vit: ViT, channels: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(vit)
        vit.norm.requires_grad_(False)
        self.fpn = FeaturePyramidNetwork([vit.embed_dim] * 4, channels, LastLevelMaxPool())
        self.strides = [*self.pyramid.strides, 2 * self.pyramid.strides[-1]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W), sides multiples of 2P -> five maps (B, channels, H/stride, W/stride) float32."""
        maps = self.pyramid(images)
        # float32: anchors take the maps' type, and bfloat16 cannot tell one pixel from the next
        return {name: one.float() for name, one in self.fpn({str(i): one for i, one in enumerate(maps)}).items()}


class MaskRCNN(nn.Module):
    """The detector.

    Args:
        vit: The backbone.
        num_classes: K, without the background.
        config: The parts after it.
        masks: With the mask head; without it, it is Faster R-CNN.
    """

    def __init__(
        self,
        vit: ViT,
        num_classes: int,
        *,
        config: DetectorConfig = DetectorConfig(),
        masks: bool = True,
    ) -> None:
        super().__init__()
        vit.set_grad_checkpointing(config.grad_checkpointing)
        self.config, self.num_classes, self.with_masks = config, num_classes, masks
        self.backbone = PyramidBackbone(vit, config.channels)
        self.rpn = self._proposals()
        self.roi_heads = self._heads(masks)

    @property
    def vit(self) -> ViT:
        """The shared backbone."""
        return self.backbone.pyramid.vit

    def _proposals(self) -> Proposals:
        config, strides = self.config, self.backbone.strides
        anchors = LevelAnchors(strides, config.anchor_scale)
        number = config.proposals
        return Proposals(
            anchors,
            Float32RPNHead(config.channels, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=config.anchors_per_image,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * number, "testing": number},
            post_nms_top_n={"training": number, "testing": number},
            nms_thresh=0.7,
        )

    def _heads(self, masks: bool) -> Heads:
        config, strides, outputs = self.config, self.backbone.strides[:4], self.num_classes + 1
        channels = config.channels
        heads = Heads(
            LevelRoIAlign(strides, BOX_CELLS),
            TwoMLPHead(channels * BOX_CELLS**2, config.box_features),
            FastRCNNPredictor(config.box_features, outputs),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.regions_per_image,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections,
        )
        if masks:
            heads.mask_roi_pool = LevelRoIAlign(strides, MASK_CELLS)
            heads.mask_head = MaskRCNNHeads(channels, (channels,) * 4, 1)
            heads.mask_predictor = MaskRCNNPredictor(channels, channels, outputs)
        return heads

    def batch(self, images: list[Tensor]) -> ImageList:
        """One tensor of normalised images of different sizes, zeros at the right and bottom up to multiples of 2P."""
        step = 2 * self.vit.config.patch_size
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        height, width = (-(-max(sides) // step) * step for sides in zip(*sizes, strict=True))
        together = images[0].new_zeros(len(images), len(images[0]), height, width)
        for canvas, image, (h, w) in zip(together, images, sizes, strict=True):
            canvas[:, :h, :w] = image
        return ImageList(together, sizes)

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The terms of the training loss, unweighted.

        Args:
            images: (C, H, W) float each, normalised.
            targets: For each ``boxes`` (n, 4) float32 (left, top, right, bottom, in pixels, of positive area), ``labels``
                (n,) int64 in [0, K), and with masks ``masks`` (n, H, W) bool or uint8.
        """
        batch = self.batch(images)
        shifted = [{**target, "labels": target["labels"] + 1} for target in targets]  # 0 is the background inside
        features = self.backbone(batch.tensors)
        proposals, of_proposals = self.rpn(batch, features, shifted)
        _, losses = self.roi_heads(features, proposals, batch.image_sizes, shifted)
        return {
            "objectness": of_proposals["loss_objectness"],
            "proposal": of_proposals["loss_rpn_box_reg"],
            **losses,
        }

    @torch.no_grad()
    def detect(
        self,
        images: list[Tensor],
        sizes: list[tuple[int, int]],
        of_masks: Callable[[Iterator[Tensor], tuple[int, int]], Any] | None = None,
    ) -> list[Target]:
        """What is in images; switches to evaluation for it.

        Args:
            images: (C, H, W) float each, normalised.
            sizes: Heights and widths of the originals, to which the result is scaled.
            of_masks: Makes of an image's masks, which come one by one as (H, W) bool, and of its size what is returned as
                ``masks``; by default all of them, stacked.

        Returns:
            For each ``boxes`` (n, 4), ``scores`` (n,) falling, ``labels`` (n,) in [0, K), and with masks ``masks`` (n, H, W)
            bool.
        """
        training = self.training
        self.eval()
        try:
            batch = self.batch(images)
            features = self.backbone(batch.tensors)
            proposals, _ = self.rpn(batch, features)
            found, _ = self.roi_heads(features, proposals, batch.image_sizes)
        finally:
            self.train(training)
        of_masks = of_masks or _stacked
        return [_to_original(*one, of_masks) for one in zip(found, batch.image_sizes, sizes, strict=True)]


def _stacked(masks: Iterator[Tensor], size: tuple[int, int]) -> Tensor:
    """(n, H, W) bool."""
    found = list(masks)
    return torch.stack(found) if found else torch.zeros(0, *size, dtype=torch.bool)


def _to_original(
    found: Target,
    size: tuple[int, int],
    original: tuple[int, int],
    of_masks: Callable[[Iterator[Tensor], tuple[int, int]], Any],
) -> Target:
    """Boxes and masks of an image of ``size`` on its original."""
    down, right = original[0] / size[0], original[1] / size[1]
    boxes = found["boxes"] * found["boxes"].new_tensor([right, down, right, down])
    result = {"boxes": boxes, "scores": found["scores"], "labels": found["labels"] - 1}
    if "masks" in found:
        result["masks"] = of_masks(paste_masks(found["masks"][:, 0], boxes, original), original)
    return result
