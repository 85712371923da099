"""The LightningModules: any pre-training method, classification, detection."""

from lit_splitmask.modules.classify import Classify
from lit_splitmask.modules.detect import Detect
from lit_splitmask.modules.pretrain import Pretrain

__all__ = ["Classify", "Detect", "Pretrain"]
