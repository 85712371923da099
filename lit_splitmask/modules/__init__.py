"""The LightningModules: pre-training with any method, classification, regression, segmentation, detection."""

from lit_splitmask.modules.classify import Classify
from lit_splitmask.modules.detect import Detect
from lit_splitmask.modules.pretrain import Pretrain
from lit_splitmask.modules.regress import Regress
from lit_splitmask.modules.segment import Segment

__all__ = ["Classify", "Detect", "Pretrain", "Regress", "Segment"]
