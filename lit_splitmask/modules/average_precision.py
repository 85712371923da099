"""COCO's average precision of boxes and masks, the same on any number of processes."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from lit_splitmask.annotations import rle

NAMES = {"map": "AP", "map_50": "AP50", "map_75": "AP75", "map_small": "AP_small", "map_medium": "AP_medium"}
NAMES |= {"map_large": "AP_large", "mar_100": "AR100"}


class CocoAP(MeanAveragePrecision):
    """torchmetrics' mean average precision on pycocotools, with masks as run lengths and any number of images per process.

    torchmetrics takes masks as pixels and needs the same number of images on every process. This class takes the run lengths of
    annotations and results, and gathers the images of all processes in the order of their indices.

    Args:
        masks: Evaluate masks as well as boxes.

    Raises:
        UserError: pycocotools is not installed.
    """

    indices: list[Tensor]

    def __init__(self, masks: bool = True) -> None:
        rle.require()
        types: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm") if masks else ("bbox",)
        super().__init__(
            box_format="xywh",
            iou_type=types,
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),  # as pycocotools; torchmetrics computes them in float32
            rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
            class_metrics=True,
            backend="pycocotools",
        )
        self.with_masks = masks
        self.add_state("indices", default=[], dist_reduce_fx=None)

    def update(  # type: ignore[override]
        self, found: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]], indices: Sequence[int]
    ) -> None:
        """Adds images.

        Args:
            found: Detections per image: ``boxes`` (n, 4) of left, top, right, bottom, ``scores`` (n,), ``labels`` (n,) and, with
                masks, ``masks``, n run lengths.
            truth: Ground truth per image: ``boxes`` (m, 4) of left, top, width, height, ``labels``, ``iscrowd``, ``area`` (m,)
                and, with masks, ``masks``, m run lengths.
            indices: Indices of the images; ties between scores are broken in their order.
        """
        for one, known, index in zip(found, truth, indices, strict=True):
            self.indices.append(torch.tensor(index))
            self.detection_box.append(xywh(one["boxes"].cpu()))
            self.detection_scores.append(one["scores"].float().cpu())
            self.detection_labels.append(one["labels"].cpu())
            self.groundtruth_box.append(known["boxes"].cpu())
            self.groundtruth_labels.append(known["labels"].cpu())
            self.groundtruth_crowds.append(known["iscrowd"].cpu())
            self.groundtruth_area.append(known["area"].cpu())
            if self.with_masks:
                self.detection_mask.append(_pairs(one["masks"]))  # type: ignore[arg-type]
                self.groundtruth_mask.append(_pairs(known["masks"]))  # type: ignore[arg-type]

    def _sync_dist(self, dist_sync_fn: Callable | None = None, process_group: Any | None = None) -> None:
        """Gathers the images of all processes and sorts them by index."""
        own = {name: getattr(self, name) for name in self._defaults}
        parts: list[Any] = [None] * dist.get_world_size(process_group)
        dist.all_gather_object(parts, own, group=process_group)
        indices = [int(index) for part in parts for index in part["indices"]]
        order = sorted(range(len(indices)), key=indices.__getitem__)
        for name in own:
            rows = [row for part in parts for row in part[name]]
            setattr(self, name, [rows[position] for position in order] if rows else [])

    def summary(self, class_names: Sequence[str]) -> dict[str, float]:
        """``box/AP``, ``box/AP50``, …, ``mask/AP``, …, and ``box/AP/<class>`` of each class that occurs, in [0, 1].

        A size or a class without objects has no AP and is left out.
        """
        values = self.compute()
        classes = values["classes"].reshape(-1).tolist()
        summary: dict[str, float] = {}
        for kind, prefix in (("box", "bbox_"), ("mask", "segm_")) if self.with_masks else (("box", ""),):
            summary |= {f"{kind}/{name}": float(values[f"{prefix}{key}"]) for key, name in NAMES.items()}
            per_class = values[f"{prefix}map_per_class"].reshape(-1).tolist()
            summary |= {f"{kind}/AP/{class_names[c]}": ap for c, ap in zip(classes, per_class, strict=True)}
        return {name: value for name, value in summary.items() if value >= 0}


def xywh(boxes: Tensor) -> Tensor:
    """Converts boxes: (n, 4) of left, top, right, bottom -> (n, 4) of left, top, width, height, float64."""
    boxes = boxes.to(torch.float64)
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)


def _pairs(masks: Sequence[rle.Rle]) -> tuple[tuple[tuple[int, int], bytes], ...]:
    """Run lengths in the form that torchmetrics stores."""
    return tuple((tuple(mask["size"]), mask["counts"]) for mask in masks)
