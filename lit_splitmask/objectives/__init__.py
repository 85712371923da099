"""Pre-training methods, one paper each, in pure torch."""

from lit_splitmask.objectives.base import Objective
from lit_splitmask.objectives.beit import BEiT
from lit_splitmask.objectives.dino import DINO
from lit_splitmask.objectives.instance_discrimination import InstanceDiscrimination
from lit_splitmask.objectives.mae import MAE
from lit_splitmask.objectives.mocov3 import MoCoV3
from lit_splitmask.objectives.relative_localisation import RelativeLocalisation
from lit_splitmask.objectives.self_training import SelfTraining
from lit_splitmask.objectives.simmim import SimMIM
from lit_splitmask.objectives.splitmask import SplitMask
from lit_splitmask.objectives.supervised import Supervised

__all__ = [
    "DINO",
    "MAE",
    "BEiT",
    "InstanceDiscrimination",
    "MoCoV3",
    "Objective",
    "RelativeLocalisation",
    "SelfTraining",
    "SimMIM",
    "SplitMask",
    "Supervised",
]
