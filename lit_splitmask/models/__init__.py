"""The backbone that all methods share, the decoder, and the parts for prediction, segmentation and detection."""

from lit_splitmask.models.decoder import Decoder
from lit_splitmask.models.heads import WordHead
from lit_splitmask.models.pyramid import Pyramid
from lit_splitmask.models.sliding import sliding_logits
from lit_splitmask.models.upernet import UperNet
from lit_splitmask.models.vit import ViT, ViTConfig, use_fused_attention

__all__ = [
    "Decoder",
    "Pyramid",
    "UperNet",
    "ViT",
    "ViTConfig",
    "WordHead",
    "sliding_logits",
    "use_fused_attention",
]
