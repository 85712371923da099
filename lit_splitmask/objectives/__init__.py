"""Pre-training methods, one paper each, in pure torch."""

from lit_splitmask.objectives.base import Objective
from lit_splitmask.objectives.splitmask import SplitMask

__all__ = ["Objective", "SplitMask"]
