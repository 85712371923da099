"""Datamodules: from an image folder to batches of uint8 images, labels or label maps, and indices."""

from lit_splitmask.datamodules.base import ImageData
from lit_splitmask.datamodules.budget import Budget
from lit_splitmask.datamodules.coco import CocoDetection
from lit_splitmask.datamodules.coco_annotations import looks_like_coco
from lit_splitmask.datamodules.detection_augment import DetectionAugment
from lit_splitmask.datamodules.finetune_augment import FinetuneAugment
from lit_splitmask.datamodules.folder import ImageFolder
from lit_splitmask.datamodules.glance import Glance, glance
from lit_splitmask.datamodules.label_maps import looks_like_segmentation
from lit_splitmask.datamodules.manifest import Manifest
from lit_splitmask.datamodules.multi_crop import MultiCrop
from lit_splitmask.datamodules.published import (
    ADE20K,
    COCO,
    Clipart,
    Food101,
    ImageNet,
    INaturalist2018,
    INaturalist2019,
    Painting,
    Sketch,
    StanfordCars,
)
from lit_splitmask.datamodules.segment_augment import SegmentAugment
from lit_splitmask.datamodules.segmentation import SegmentationFolder
from lit_splitmask.datamodules.transforms import PretrainAugment

__all__ = [
    "ADE20K",
    "COCO",
    "Budget",
    "Clipart",
    "CocoDetection",
    "DetectionAugment",
    "FinetuneAugment",
    "Food101",
    "Glance",
    "INaturalist2018",
    "INaturalist2019",
    "ImageData",
    "ImageFolder",
    "ImageNet",
    "Manifest",
    "MultiCrop",
    "Painting",
    "PretrainAugment",
    "SegmentAugment",
    "SegmentationFolder",
    "Sketch",
    "StanfordCars",
    "glance",
    "looks_like_coco",
    "looks_like_segmentation",
]
