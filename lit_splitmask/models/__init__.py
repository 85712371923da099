"""The shared backbone, the decoder and the heads."""

from lit_splitmask.models.decoder import Decoder
from lit_splitmask.models.heads import WordHead
from lit_splitmask.models.vit import ViT, ViTConfig, use_fused_attention

__all__ = ["Decoder", "ViT", "ViTConfig", "WordHead", "use_fused_attention"]
