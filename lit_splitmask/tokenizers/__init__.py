"""Tokenizers: images -> visual words (Section 3.3)."""

from lit_splitmask.tokenizers.base import Tokenizer, WordStatistics
from lit_splitmask.tokenizers.kmeans import KMeans
from lit_splitmask.tokenizers.random_patches import RandomPatches
from lit_splitmask.tokenizers.random_projection import RandomProjection

__all__ = ["KMeans", "RandomPatches", "RandomProjection", "Tokenizer", "WordStatistics"]
