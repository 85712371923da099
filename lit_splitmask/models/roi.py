"""Regions of interest as in the reference recipe (mmdetection's), where torchvision differs.

torchvision's Mask R-CNN has a smooth L1 loss, RoIAlign that is half a cell off (``aligned=False``, two samples a cell) and
masks that are pasted at whole pixels; the reference has an L1 loss, aligned RoIs with as many samples as a cell has pixels,
binary mask targets, and pastes at subpixels. Everything is in float32: in bfloat16, coordinates would be off by pixels.

R regions, K classes, C channels.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align

Target = dict[str, Tensor]
FINEST_SIDE = 14
"""Regions of up to twice so many cells of the finest map are taken from it: 112 px at stride 4 (FPN's Eq. 1)."""


class LevelRoIAlign(nn.Module):
    """Aligned RoIAlign from the map that fits a region's size.

    Args:
        strides: Of the maps, from fine to coarse, each twice the one before.
        output_size: Side of the result, in cells.
    """

    def __init__(self, strides: list[int], output_size: int) -> None:
        super().__init__()
        self.strides, self.output_size = strides, output_size

    def levels(self, boxes: Tensor) -> Tensor:
        """Which map each box (R, 4) is taken from: (R,) int64."""
        sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
        levels = torch.log2(sides / (FINEST_SIDE * self.strides[0]) + 1e-6).floor()
        return levels.clamp(0, len(self.strides) - 1).long()

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pools boxes (R_i, 4) of each image: (R, C, output_size, output_size) float32."""
        numbers = torch.repeat_interleave(
            torch.arange(len(boxes), device=boxes[0].device),
            torch.tensor([len(b) for b in boxes], device=boxes[0].device),
        )
        regions = torch.cat([numbers[:, None].float(), torch.cat(boxes).float()], dim=1)  # (R, 5)
        levels = self.levels(regions[:, 1:])
        maps = list(features.values())[: len(self.strides)]
        pooled = maps[0].new_zeros(len(regions), maps[0].shape[1], self.output_size, self.output_size)
        for level, (one, stride) in enumerate(zip(maps, self.strides, strict=True)):
            here = torch.where(levels == level)[0]
            found = roi_align(one, regions[here], self.output_size, 1 / stride, sampling_ratio=0, aligned=True)
            pooled = pooled.index_put((here,), found.to(pooled.dtype))
        return pooled


class Float32RPNHead(RPNHead):
    """Objectness and offsets in float32 whatever the precision: anchors and boxes are computed from them."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps (B, C, H, W) each -> objectness (B, A, H, W) and offsets (B, 4A, H, W) each."""
        objectness, offsets = super().forward(x)
        return [one.float() for one in objectness], [one.float() for one in offsets]


class Proposals(RegionProposalNetwork):
    """torchvision's region proposals with the reference's L1 loss of boxes."""

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of sampled anchors, L1 of the positive ones, both over the number sampled."""
        positive, negative = (torch.where(torch.cat(masks))[0] for masks in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        targets, known = torch.cat(regression_targets), torch.cat(labels)
        box = F.l1_loss(pred_bbox_deltas[positive], targets[positive], reduction="sum") / sampled.numel()
        return F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], known[sampled]), box


class Heads(RoIHeads):
    """torchvision's box and mask heads with the reference's losses, in float32."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[Target], dict[str, Tensor]]:
        """Losses in training, detections in evaluation (``masks`` (n, 1, M, M) in [0, 1], within their boxes)."""
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, image_shapes, targets)
        logits, offsets = self._classify(features, proposals, image_shapes)
        found = self.postprocess_detections(logits, offsets, proposals, image_shapes)
        results = [
            {"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in zip(*found, strict=True)
        ]
        if self.has_mask():
            masks = self._mask_logits(features, [one["boxes"] for one in results], image_shapes)
            for one, mask in zip(results, maskrcnn_inference(masks, [o["labels"] for o in results]), strict=True):
                one["masks"] = mask
        return results, {}

    def _classify(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, K + 1) and offsets (R, 4 (K + 1)), float32."""
        logits, offsets = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_shapes)))
        return logits.float(), offsets.float()

    def _mask_logits(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """(R, K + 1, M, M) float32."""
        return self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes))).float()

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target],
    ) -> dict[str, Tensor]:
        boxes, matched, labels, offset_targets = self.select_training_samples(proposals, targets)
        logits, offsets = self._classify(features, boxes, image_shapes)
        known = torch.cat(labels)
        positive = torch.where(known > 0)[0]
        chosen = offsets.unflatten(1, (-1, 4))[positive, known[positive]]
        box = F.l1_loss(chosen, torch.cat(list(offset_targets))[positive], reduction="sum") / known.numel()
        losses = {"class": F.cross_entropy(logits, known), "box": box}
        if self.has_mask():
            inside = [torch.where(of_image > 0)[0] for of_image in labels]
            mask_boxes = [b[i] for b, i in zip(boxes, inside, strict=True)]
            mask_logits = self._mask_logits(features, mask_boxes, image_shapes)
            side = mask_logits.shape[-1]
            truth = torch.cat(
                [
                    crop_masks(target["masks"], match[i], box, side)
                    for target, match, i, box in zip(targets, matched, inside, mask_boxes, strict=True)
                ]
            )
            own = mask_logits[torch.arange(len(positive), device=known.device), known[positive]]
            # without regions the mean would be nan; the sum keeps the head in the graph, as several processes need
            losses["mask"] = F.binary_cross_entropy_with_logits(own, truth) if len(positive) else mask_logits.sum()
        return losses


def crop_masks(masks: Tensor, which: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The parts of masks (n, H, W) within boxes (R, 4), as (R, side, side) float32 of 0 and 1.

    Args:
        masks: Of the objects in an image.
        which: (R,) int64, the mask that a box is of; no mask is copied for it.
        boxes: Left, top, right, bottom.
        side: Of the result.
    """
    if not len(boxes):
        return boxes.new_zeros(0, side, side)
    regions = torch.cat([which[:, None].to(boxes), boxes], dim=1)
    return (roi_align(masks[:, None].to(boxes), regions, side, 1.0, 0, aligned=True)[:, 0] >= 0.5).to(boxes)


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Iterator[Tensor]:
    """Masks (n, M, M) in [0, 1] of boxes (n, 4) on an image of ``size`` (H, W), interpolated at subpixels.

    Yields:
        (H, W) bool of each: all masks of a large photo together would take gigabytes.
    """
    height, width = size
    for mask, (x0, y0, x1, y1) in zip(masks.float(), boxes.tolist(), strict=True):
        canvas = torch.zeros(height, width, dtype=torch.bool, device=masks.device)
        left, right = max(0, math.floor(x0)), min(width, math.ceil(x1))
        top, bottom = max(0, math.floor(y0)), min(height, math.ceil(y1))
        if right <= left or bottom <= top:
            yield canvas
            continue
        xs = (torch.arange(left, right, device=masks.device) + 0.5 - x0) / max(x1 - x0, 1e-6) * 2 - 1
        ys = (torch.arange(top, bottom, device=masks.device) + 0.5 - y0) / max(y1 - y0, 1e-6) * 2 - 1
        grid = torch.stack([xs.expand(len(ys), -1), ys[:, None].expand(-1, len(xs))], dim=-1)[None]
        values = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
        canvas[top:bottom, left:right] = values >= threshold
        yield canvas
