"""Mask R-CNN, or Faster R-CNN without masks, on the shared ViT (Section 5.2.1, Table 4), with parts of torchvision's.

B images, D width of the ViT, P patch size in pixels, K classes. Boxes are left, top, right, bottom in pixels.
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
"""Aspect ratios of the anchors, height over width."""

BOX_CELLS, MASK_CELLS = 7, 14
"""Sides of the pooled regions of the box head and the mask head, in cells."""


@dataclass(frozen=True)
class DetectorConfig:
    """Settings of the parts after the backbone; defaults are the reference's (Mask R-CNN of the Swin repository).

    Attributes:
        channels: Channels of the feature pyramid, the proposal head and the mask head.
        box_features: Width of the two layers of the box head.
        anchor_scale: Side of the anchors divided by the stride of their map.
        proposals: Most proposals per image after non-maximum suppression, in training and evaluation.
        anchors_per_image: Anchors sampled per image for the loss of the proposals, at most half of them positive.
        regions_per_image: Regions sampled per image for the losses of the heads, at most a quarter of them positive.
        score_threshold: Least score of a detection, in [0, 1).
        nms_threshold: Overlap (IoU) with a higher-scoring detection of the same class above which a detection is dropped, in
            [0, 1).
        detections: Most detections per image.
        grad_checkpointing: Whether the ViT's blocks are computed again in the backward pass, to save memory.

    Raises:
        UserError: ``score_threshold`` or ``nms_threshold`` is outside [0, 1), or another number is not positive.
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
        counts = ("channels", "box_features", "proposals", "anchors_per_image", "regions_per_image", "detections")
        for name in (*counts, "anchor_scale"):
            if getattr(self, name) <= 0:
                raise UserError(f"detector.{name} is {getattr(self, name)}; it must be positive.")
        for name in ("score_threshold", "nms_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"detector.{name} is {getattr(self, name)}; it must be in [0, 1).")


class LevelAnchors(AnchorGenerator):
    """Anchors spaced by the strides of the maps; torchvision divides the sides of image and map, and rounding changes the stride.

    Args:
        strides: Strides of the maps in pixels.
        scale: Side of the anchors divided by the stride of their map.
    """

    def __init__(self, strides: list[int], scale: float) -> None:
        super().__init__(tuple((round(scale * stride),) for stride in strides), (RATIOS,) * len(strides))
        self.strides = strides

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Makes the anchors of a batch.

        Args:
            image_list: The batch; only the number of images counts.
            feature_maps: A map (B, C, H_i, W_i) for each stride.

        Returns:
            For each image the same boxes of all maps, (N, 4) of the maps' type.
        """
        like = feature_maps[0]
        self.set_cell_anchors(like.dtype, like.device)
        steps = [[torch.tensor(stride, device=like.device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors([list(feature_map.shape[-2:]) for feature_map in feature_maps], steps))
        return [anchors] * len(image_list.image_sizes)


class PyramidBackbone(nn.Module):
    """The ViT's four maps through a feature pyramid network, and a fifth, coarser one for the proposals.

    Args:
        vit: The backbone. The maps do not use its final norm, which is frozen, since DDP needs a gradient of every trainable
            parameter.
        channels: Channels of the maps.

    Attributes:
        strides: Strides of the five maps in pixels, from fine to coarse.

    Raises:
        UserError: The backbone has fewer than four blocks, or P is not divisible by 4.
    """

    def __init__(self, vit: ViT, channels: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(vit)
        vit.norm.requires_grad_(False)
        self.fpn = FeaturePyramidNetwork([vit.embed_dim] * 4, channels, LastLevelMaxPool())
        self.strides = [*self.pyramid.strides, 2 * self.pyramid.strides[-1]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps by name, from fine to coarse.

        Args:
            images: (B, C, H, W) float, normalised; H and W multiples of 2P.

        Returns:
            Five maps (B, channels, H/stride, W/stride) float32.
        """
        maps = self.fpn({str(i): feature_map for i, feature_map in enumerate(self.pyramid(images))})
        # Anchors have the maps' type, and bfloat16 cannot tell neighbouring pixels apart.
        return {name: feature_map.float() for name, feature_map in maps.items()}


class MaskRCNN(nn.Module):
    """The detector.

    Args:
        vit: The backbone.
        num_classes: K, without the background.
        config: Settings of the parts after the backbone.
        masks: Whether there is a mask head; without it, this is Faster R-CNN.

    Raises:
        UserError: The backbone has fewer than four blocks, or P is not divisible by 4.
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
        self.rpn = self._make_proposals()
        self.roi_heads = self._make_heads(masks)

    @property
    def vit(self) -> ViT:
        """The shared backbone."""
        return self.backbone.pyramid.vit

    def _make_proposals(self) -> Proposals:
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

    def _make_heads(self, masks: bool) -> Heads:
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
        """Puts images of different sizes into one tensor, padded with zeros at the right and bottom to multiples of 2P.

        Args:
            images: At least one, each (C, H_i, W_i) float, normalised.
        """
        step = 2 * self.vit.config.patch_size
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        height, width = (-(-max(sides) // step) * step for sides in zip(*sizes, strict=True))
        padded = images[0].new_zeros(len(images), len(images[0]), height, width)
        for canvas, image, (h, w) in zip(padded, images, sizes, strict=True):
            canvas[:, :h, :w] = image
        return ImageList(padded, sizes)

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The terms of the training loss, unweighted.

        Args:
            images: Each (C, H_i, W_i) float, normalised.
            targets: For each image ``boxes`` (n, 4) float32 of positive area, ``labels`` (n,) int64 in [0, K), and with a mask
                head ``masks`` (n, H_i, W_i) bool or uint8.

        Returns:
            Float32 scalars: ``objectness``, ``proposal``, ``class``, ``box``, and with a mask head ``mask``.
        """
        batch = self.batch(images)
        shifted = [
            {**target, "labels": target["labels"] + 1} for target in targets
        ]  # torchvision's 0 is the background
        features = self.backbone(batch.tensors)
        proposals, proposal_losses = self.rpn(batch, features, shifted)
        _, head_losses = self.roi_heads(features, proposals, batch.image_sizes, shifted)
        return {
            "objectness": proposal_losses["loss_objectness"],
            "proposal": proposal_losses["loss_rpn_box_reg"],
            **head_losses,
        }

    @torch.no_grad()
    def detect(
        self,
        images: list[Tensor],
        sizes: list[tuple[int, int]],
        of_masks: Callable[[Iterator[Tensor], tuple[int, int]], Any] | None = None,
    ) -> list[Target]:
        """Detects objects, in evaluation mode.

        Args:
            images: Each (C, H_i, W_i) float, normalised.
            sizes: Heights and widths of the original images, to which boxes and masks are scaled.
            of_masks: Makes the returned ``masks`` from an iterator over an image's masks, each (H, W) bool, and from the size
                (H, W); None stacks them.

        Returns:
            For each image ``boxes`` (n, 4) float32, ``scores`` (n,) float32 in [0, 1], the highest first, ``labels`` (n,) int64
            in [0, K), and with a mask head ``masks``, by default (n, H, W) bool.
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
        of_masks = of_masks or _stack
        return [_scale(*image, of_masks) for image in zip(found, batch.image_sizes, sizes, strict=True)]


def _stack(masks: Iterator[Tensor], size: tuple[int, int]) -> Tensor:
    """Stacks an image's masks: (n, H, W) bool."""
    stacked = list(masks)
    return torch.stack(stacked) if stacked else torch.zeros(0, *size, dtype=torch.bool)


def _scale(
    found: Target,
    size: tuple[int, int],
    original: tuple[int, int],
    of_masks: Callable[[Iterator[Tensor], tuple[int, int]], Any],
) -> Target:
    """Scales the detections in an image of ``size`` (H, W) to its ``original`` size."""
    vertical, horizontal = original[0] / size[0], original[1] / size[1]
    boxes = found["boxes"] * found["boxes"].new_tensor([horizontal, vertical, horizontal, vertical])
    result = {"boxes": boxes, "scores": found["scores"], "labels": found["labels"] - 1}
    if "masks" in found:
        result["masks"] = of_masks(paste_masks(found["masks"][:, 0], boxes, original), original)
    return result
