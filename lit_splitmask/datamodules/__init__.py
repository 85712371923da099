"""Datamodules: from files on disk to batches of uint8 images, with labels, label maps or boxes."""

from typing import TYPE_CHECKING

from lit_splitmask.annotations.coco_files import looks_like_coco
from lit_splitmask.annotations.pairs import looks_like_segmentation
from lit_splitmask.augment.detect import DetectionAugment
from lit_splitmask.augment.finetune import FinetuneAugment
from lit_splitmask.augment.multi_crop import MultiCrop
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.augment.segment import SegmentAugment
from lit_splitmask.contract import TrainingData
from lit_splitmask.datamodules.coco_detection import CocoDetection
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.datamodules.image_folder import ImageFolder
from lit_splitmask.datamodules.manifest import Manifest
from lit_splitmask.datamodules.published.ade20k import ADE20K
from lit_splitmask.datamodules.published.coco import COCO
from lit_splitmask.datamodules.published.domainnet import Clipart, Painting, Sketch
from lit_splitmask.datamodules.published.food101 import Food101
from lit_splitmask.datamodules.published.imagenet import ImageNet
from lit_splitmask.datamodules.published.inaturalist import INaturalist2018, INaturalist2019
from lit_splitmask.datamodules.published.stanford_cars import StanfordCars
from lit_splitmask.datamodules.regression_manifest import RegressionManifest
from lit_splitmask.datamodules.segmentation_folder import SegmentationFolder
from lit_splitmask.datamodules.shards import Shards
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
    "RegressionManifest",
    "SegmentAugment",
    "SegmentationFolder",
    "Shards",
    "Sketch",
    "StanfordCars",
    "glance",
    "looks_like_coco",
    "looks_like_segmentation",
]

if TYPE_CHECKING:

    def _meets_the_contract(data: ImageData) -> TrainingData:
        return data  # mypy checks here that every datamodule of this project is TrainingData
