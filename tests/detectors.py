"""Tiny detectors, and a set of images for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coco_sets import annotation, change, load, write_set
from tiny_runs import tiny_trainer

from lit_splitmask.annotations import rle
from lit_splitmask.callbacks import CocoResults
from lit_splitmask.datamodules import Budget, CocoDetection
from lit_splitmask.files import write_atomically
from lit_splitmask.models import ViTConfig
from lit_splitmask.models.mask_rcnn import DetectorConfig
from lit_splitmask.modules import Detect
from lit_splitmask.optim import OptimConfig

BACKBONE: dict[str, Any] = {
    "size": "tiny", "embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 8, "image_size": 64, "positions": "sincos"
}  # fmt: skip
DETECTOR = DetectorConfig(channels=16, box_features=24, anchor_scale=4.0, proposals=30, regions_per_image=16)
OPTIM = OptimConfig(lr=1e-3, reference_batch=0, warmup=0.2, schedule="steps")


def detection_set(folder: Path) -> Path:
    """Writes six training and five validation images, one of which has no objects and one a crowd."""
    root = write_set(folder, val=5)
    stored = load(root, "val")
    ids = sorted(image["id"] for image in stored["images"])
    kept = [one for one in stored["annotations"] if one["image_id"] != ids[1]]
    crowd = {**annotation(99, ids[2], 3, (3, 3, 40, 30)), "iscrowd": 1}
    image = next(image for image in stored["images"] if image["id"] == ids[2])
    crowd["segmentation"] = rle.as_json(rle.rasterise(crowd["segmentation"], (image["height"], image["width"])))
    change(root, "val", annotations=[*kept, crowd])
    return root


def coco(root: Path, *, steps: int = 4, **settings: Any) -> CocoDetection:
    values: dict[str, Any] = {"batch_size": 2, "num_workers": 0, "num_epochs": 1, "max_size": 96}
    values["index_dir"] = str(root.parent / "index")
    return CocoDetection(str(root), settings.pop("image_size", 64), budget=Budget(steps=steps), **(values | settings))


def detector(**settings: Any) -> Detect:
    values: dict[str, Any] = {"backbone": ViTConfig(**BACKBONE), "detector": DETECTOR, "optim": OPTIM}
    return Detect(**(values | settings))


class NearGroundTruth:
    """In place of a network: the ground truth of a set with shifted boxes, wrong classes, misses and false detections."""

    def __init__(self, data: CocoDetection) -> None:
        self.items = {
            image["image"].numpy().tobytes(): image
            for images in map(data.eval_images, data.source.splits.values())
            for image in map(images.__getitem__, range(len(images)))
        }

    def __call__(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [self.perturbed(self.items[image.numpy().tobytes()]) for image in batch["image"]]

    @staticmethod
    def perturbed(item: dict[str, Any]) -> dict[str, Any]:
        generator = np.random.default_rng(int(item["image"].long().sum()))
        height, width = item["size"]
        boxes, labels, scores, masks = [], [], [], []
        for (left, top, w, h), label in zip(
            item["truth"]["boxes"].tolist(), item["truth"]["labels"].tolist(), strict=True
        ):
            for _ in range(int(generator.integers(0, 4))):
                box = np.array([left, top, left + w, top + h]) + generator.normal(0, 2.0, 4)
                box = [max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])]
                mask = torch.zeros(height, width, dtype=torch.bool)
                mask[round(box[1]) : round(box[3]), round(box[0]) : round(box[2])] = True
                boxes.append(box)
                masks.append(mask)
                labels.append(label if generator.random() < 0.8 else int(generator.integers(3)))
                scores.append(round(float(generator.random()), 1))  # with ties, also between images
        order = np.argsort(-np.array(scores), kind="stable") if scores else []
        return {
            "boxes": torch.tensor(
                np.array(boxes).reshape(-1, 4)[order] if scores else np.zeros((0, 4)), dtype=torch.float32
            ),
            "labels": torch.tensor([labels[i] for i in order], dtype=torch.int64),
            "scores": torch.tensor([scores[i] for i in order]),
            "masks": rle.encode(torch.stack([masks[i] for i in order])) if scores else [],
        }


def near_ground_truth(root: Path) -> tuple[Detect, CocoDetection]:
    data, module = coco(root), detector()
    data.prepare_data()
    data.setup("validate")
    module.build(data.num_classes)
    module.class_names, module.category_ids = data.class_names, data.category_ids
    module._found = NearGroundTruth(data)  # type: ignore[method-assign]
    return module, data


def validate_and_predict(root: Path, folder: Path, **settings: Any) -> None:
    """Writes what each process logs, and the results of all processes."""
    trainer = tiny_trainer(folder, callbacks=[CocoResults(str(folder / "results.json"))], **settings)
    module, data = near_ground_truth(root)
    logged = trainer.validate(module, datamodule=data, verbose=False)[0]
    trainer.predict(module, datamodule=data)
    trained = detector()
    trainer.fit(trained, datamodule=coco(root, steps=2))
    weights = sum(float(parameter.detach().double().abs().sum()) for parameter in trained.parameters())
    report = {"scores": logged, "weights": weights, "steps": trainer.global_step}
    write_atomically(folder / f"rank{trainer.global_rank}.json", json.dumps(report).encode())
