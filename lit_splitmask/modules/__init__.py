"""The LightningModules: any pre-training method, classification and segmentation."""

from lit_splitmask.modules.classify import Classify
from lit_splitmask.modules.pretrain import Pretrain
from lit_splitmask.modules.segment import Segment

__all__ = ["Classify", "Pretrain", "Segment"]
