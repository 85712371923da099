"""The LightningModules: any pre-training method, and classification."""

from lit_splitmask.modules.classify import Classify
from lit_splitmask.modules.pretrain import Pretrain

__all__ = ["Classify", "Pretrain"]
