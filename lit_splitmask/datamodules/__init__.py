"""Datamodules: from an image folder to batches of uint8 images, labels or label maps, and indices."""

from lit_splitmask.annotations.coco import looks_like_coco
from lit_splitmask.annotations.label_maps import looks_like_segmentation
from lit_splitmask.augment.detect import DetectionAugment
from lit_splitmask.augment.finetune import FinetuneAugment
from lit_splitmask.augment.multi_crop import MultiCrop
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.augment.segment import SegmentAugment
from lit_splitmask.datamodules.coco_detection import CocoDetection
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.datamodules.image_folder import ImageFolder
from lit_splitmask.datamodules.manifest import Manifest
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
from lit_splitmask.datamodules.segmentation_folder import SegmentationFolder
from lit_splitmask.images.glance import Glance, glance
from lit_splitmask.loading.budget import Budget

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
