"""The best that a mask head of 28×28 cells can do: ground truth at that resolution, pasted by torchvision's functions."""

from typing import Any

import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from lit_splitmask.annotations import rle

CELLS = 28


def oracle(truth: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Detections with the true boxes and classes, whose masks are the true ones at 28×28 cells, pasted back."""
    boxes = truth["boxes"].float()
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    cells = []
    for box, mask in zip(corners.tolist(), rle.decode(truth["masks"], size), strict=True):
        left, top, right, bottom = round(box[0]), round(box[1]), round(box[2]), round(box[3])
        part = mask[top : max(bottom, top + 1), left : max(right, left + 1)].float()
        cells.append(F.interpolate(part[None, None], (CELLS, CELLS), mode="bilinear", antialias=True)[0])
    pasted = paste_masks_in_image(torch.stack(cells), corners, size)[:, 0] >= 0.5
    return {
        "boxes": corners,
        "labels": truth["labels"],
        "scores": torch.ones(len(boxes)),
        "masks": rle.encode(pasted),
    }
