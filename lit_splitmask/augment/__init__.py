"""Augmentations: pure functions of an image and a seed, so that workers and resumed runs give the same pixels."""

from lit_splitmask.augment.base import Augment
from lit_splitmask.augment.detect import DetectionAugment
from lit_splitmask.augment.finetune import FinetuneAugment
from lit_splitmask.augment.multi_crop import MultiCrop
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.augment.segment import SegmentAugment

__all__ = ["Augment", "DetectionAugment", "FinetuneAugment", "MultiCrop", "PretrainAugment", "SegmentAugment"]
