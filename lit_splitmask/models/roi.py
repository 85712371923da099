"""Proposals, heads and masks of Mask R-CNN as in the reference recipe (mmdetection's), where torchvision differs.

torchvision has a smooth L1 loss, RoIAlign that is off by half a cell (``aligned=False``) with two samples per cell, and masks
pasted at whole pixels. The reference has an L1 loss, aligned RoIAlign with one sample per pixel of a cell, binary mask targets,
and masks pasted at subpixels. Everything is in float32; in bfloat16, coordinates would be off by pixels.

R regions, K classes, A anchors per position, C channels, M side of the mask head's output in cells. Boxes are left, top, right,
bottom in pixels.
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
"""Tensors of an image's objects by name, such as ``boxes``, ``labels`` and ``masks``."""

FINEST_SIDE = 14
"""Regions below twice this side, in cells of the finest map, are pooled from that map: 112 px at stride 4 (FPN's Eq. 1)."""


class LevelRoIAlign(nn.Module):
    """Aligned RoIAlign that pools each region from the map that fits its size.

    Args:
        strides: Strides of the maps in pixels, from fine to coarse, each twice the one before.
        output_size: Side of the pooled regions in cells.
    """

    def __init__(self, strides: list[int], output_size: int) -> None:
        super().__init__()
        self.strides, self.output_size = strides, output_size

    def levels(self, boxes: Tensor) -> Tensor:
        """Index of the map that each box is pooled from: (R, 4) float -> (R,) int64."""
        sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
        levels = torch.log2(sides / (FINEST_SIDE * self.strides[0]) + 1e-6).floor()
        return levels.clamp(0, len(self.strides) - 1).long()

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pools the boxes of a batch.

        Args:
            features: Maps (B, C, H_i, W_i) from fine to coarse; those beyond ``strides`` are ignored.
            boxes: For each image (R_i, 4) float.
            image_shapes: Unused; torchvision passes it.

        Returns:
            (R, C, output_size, output_size) of the maps' type, the images one after the other.
        """
        image_indices = torch.repeat_interleave(
            torch.arange(len(boxes), device=boxes[0].device),
            torch.tensor([len(b) for b in boxes], device=boxes[0].device),
        )
        regions = torch.cat([image_indices[:, None].float(), torch.cat(boxes).float()], dim=1)  # (R, 5)
        levels = self.levels(regions[:, 1:])
        maps = list(features.values())[: len(self.strides)]
        pooled = maps[0].new_zeros(len(regions), maps[0].shape[1], self.output_size, self.output_size)
        for level, (feature_map, stride) in enumerate(zip(maps, self.strides, strict=True)):
            rows = torch.where(levels == level)[0]
            part = roi_align(feature_map, regions[rows], self.output_size, 1 / stride, sampling_ratio=0, aligned=True)
            pooled = pooled.index_put((rows,), part.to(pooled.dtype))
        return pooled


class Float32RPNHead(RPNHead):
    """torchvision's proposal head with float32 outputs in any precision, since boxes are computed from them."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """For each map (B, C, H, W) float: objectness (B, A, H, W) and offsets (B, 4A, H, W), float32."""
        objectness, offsets = super().forward(x)
        return [scores.float() for scores in objectness], [deltas.float() for deltas in offsets]


class Proposals(RegionProposalNetwork):
    """torchvision's region proposal network with the reference's L1 loss of boxes."""

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Losses of sampled anchors.

        Args:
            objectness: (N, 1) float32 logits of the anchors of all images.
            pred_bbox_deltas: (N, 4) float32 offsets.
            labels: For each image (N_i,) float32: 1 object, 0 background, −1 ignored.
            regression_targets: For each image (N_i, 4) float32 offsets; only those of objects count.

        Returns:
            Binary cross-entropy of the sampled anchors, and L1 of the positive ones, both divided by the number sampled.
        """
        positive, negative = (torch.where(torch.cat(masks))[0] for masks in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        targets, known = torch.cat(regression_targets), torch.cat(labels)
        box = F.l1_loss(pred_bbox_deltas[positive], targets[positive], reduction="sum") / sampled.numel()
        return F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], known[sampled]), box


class Heads(RoIHeads):
    """torchvision's box and mask heads with the reference's losses, computed in float32."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[Target], dict[str, Tensor]]:
        """Computes the losses in training and the detections in evaluation.

        Args:
            features: Maps (B, C, H_i, W_i) float32 from fine to coarse.
            proposals: For each image (R_i, 4) float32.
            image_shapes: Heights and widths of the images without padding.
            targets: Objects of each image as in torchvision, classes from 1; needed in training.

        Returns:
            In training an empty list and the losses ``class``, ``box`` and, with a mask head, ``mask``. In evaluation, for each
            image ``boxes`` (n, 4), ``scores`` (n,) in [0, 1], ``labels`` (n,) from 1, and with a mask head ``masks`` (n, 1, M, M)
            in [0, 1] within their boxes; and no losses.
        """
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, image_shapes, targets)
        logits, offsets = self._classify(features, proposals, image_shapes)
        detections = self.postprocess_detections(logits, offsets, proposals, image_shapes)
        results = [
            {"boxes": boxes, "scores": scores, "labels": labels}
            for boxes, scores, labels in zip(*detections, strict=True)
        ]
        if self.has_mask():
            masks = self._mask_logits(features, [found["boxes"] for found in results], image_shapes)
            probabilities = maskrcnn_inference(masks, [found["labels"] for found in results])
            for found, mask in zip(results, probabilities, strict=True):
                found["masks"] = mask
        return results, {}

    def _classify(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Class logits (R, K + 1) and box offsets (R, 4 (K + 1)), float32."""
        logits, offsets = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_shapes)))
        return logits.float(), offsets.float()

    def _mask_logits(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Mask logits, (R, K + 1, M, M) float32."""
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
            with_object = [torch.where(image_labels > 0)[0] for image_labels in labels]
            mask_boxes = [b[i] for b, i in zip(boxes, with_object, strict=True)]
            mask_logits = self._mask_logits(features, mask_boxes, image_shapes)
            side = mask_logits.shape[-1]
            mask_targets = torch.cat(
                [
                    crop_masks(target["masks"], match[i], box, side)
                    for target, match, i, box in zip(targets, matched, with_object, mask_boxes, strict=True)
                ]
            )
            predicted = mask_logits[torch.arange(len(positive), device=known.device), known[positive]]
            # Without regions the mean would be NaN; the sum is zero, with the gradient of the mask head that DDP needs.
            losses["mask"] = (
                F.binary_cross_entropy_with_logits(predicted, mask_targets) if len(positive) else mask_logits.sum()
            )
        return losses


def crop_masks(masks: Tensor, which: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Cuts boxes out of an image's masks and resamples them to squares.

    Args:
        masks: (n, H, W) bool, uint8 or float of 0 and 1.
        which: Index of the mask of each box, (R,) int64 in [0, n).
        boxes: (R, 4) float32.
        side: Side of the result in cells.

    Returns:
        (R, side, side) float32 of 0 and 1.
    """
    if not len(boxes):
        return boxes.new_zeros(0, side, side)
    regions = torch.cat([which[:, None].to(boxes), boxes], dim=1)
    return (roi_align(masks[:, None].to(boxes), regions, side, 1.0, 0, aligned=True)[:, 0] >= 0.5).to(boxes)


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Iterator[Tensor]:
    """Pastes masks into their boxes on an image, interpolated at subpixels.

    Args:
        masks: (n, M, M) float in [0, 1].
        boxes: (n, 4) float32; parts outside the image are cut off.
        size: Height and width of the image, H and W.
        threshold: Least value of a pixel of the mask.

    Yields:
        The masks one by one, (H, W) bool; all masks of a large photo together would take gigabytes.
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
