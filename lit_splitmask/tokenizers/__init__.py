"""Tokenizers: images -> visual words (Section 3.3)."""

from lit_splitmask.tokenizers.base import Codebook, Tokenizer, WordStatistics
from lit_splitmask.tokenizers.dalle import DallE
from lit_splitmask.tokenizers.kmeans import KMeans
from lit_splitmask.tokenizers.random_patches import RandomPatches
from lit_splitmask.tokenizers.random_projection import RandomProjection

__all__ = ["Codebook", "DallE", "KMeans", "RandomPatches", "RandomProjection", "Tokenizer", "WordStatistics"]
