"""Datamodules: from an image folder to batches of uint8 images, labels and indices."""

from lit_splitmask.datamodules.base import ImageData
from lit_splitmask.datamodules.budget import Budget
from lit_splitmask.datamodules.finetune_augment import FinetuneAugment
from lit_splitmask.datamodules.folder import ImageFolder
from lit_splitmask.datamodules.glance import Glance, glance
from lit_splitmask.datamodules.transforms import PretrainAugment

__all__ = ["Budget", "FinetuneAugment", "Glance", "ImageData", "ImageFolder", "PretrainAugment", "glance"]
