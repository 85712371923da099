"""K-means centroids of training patches as words (Section 3.3, "k-means")."""

import logging
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.seeding import derive_seed
from lit_splitmask.tokenizers.base import CONSTANT_PATCH_NORM, Codebook
from lit_splitmask.tokenizers.faiss_gpu import FaissSearch, faiss_gpu_works
from lit_splitmask.tokenizers.lloyd import START_PER_WORD, Search, TorchSearch, lloyd, spread_start, strides
from lit_splitmask.tokenizers.progress import counted
from lit_splitmask.tokenizers.sampling import sample_patches

log = logging.getLogger(__name__)

FITTING_VERSION = 2
"""Changes whenever the same patches become other words, so that earlier kept codebooks are not used."""


class KMeans(Codebook):
    """Spherical k-means on patches of training crops, L2-normalised, as Eq. 1 is a cosine.

    Args:
        patch_size, in_chans, vocabulary, pixels, codebook_file: As in :class:`Codebook`.
        max_patches: Most patches, sampled uniformly over the images; 3 million in the paper. All of them are used.
        min_patches: Patches to aim at, from several crops of each image (at most 8) if the images are few; None for 39 per word.
        iterations: Most iterations of Lloyd's algorithm. The first ones leave out some of the points, where these are many.

    Raises:
        UserError: As in :class:`Codebook`.
    """

    def __init__(
        self,
        patch_size: int,
        in_chans: int = 3,
        *,
        vocabulary: int = 8192,
        pixels: Literal["normalised", "centred"] = "normalised",
        max_patches: int = 3_000_000,
        min_patches: int | None = None,
        iterations: int = 25,
        codebook_file: str | None = None,
    ) -> None:
        super().__init__(patch_size, in_chans, vocabulary=vocabulary, pixels=pixels, codebook_file=codebook_file)
        self.max_patches, self.min_patches, self.iterations = max_patches, min_patches, iterations

    @property
    def patches_to_fit(self) -> int:
        return super().patches_to_fit if self.min_patches is None else min(self.min_patches, self.max_patches)

    @property
    def fitted_by(self) -> dict[str, Any]:
        return {"max_patches": self.max_patches, "iterations": self.iterations, "version": FITTING_VERSION}

    def fit(self, views: Iterable[Tensor], num_images: int, seed: int) -> None:
        patches = sample_patches(self, views, num_images, self.max_patches, seed=seed)
        norms = patches.norm(dim=1, keepdim=True)
        usable = norms[:, 0] > CONSTANT_PATCH_NORM
        patches = patches.div_(norms) if bool(usable.all()) else patches[usable].div_(norms[usable])
        if len(patches) < self.vocabulary:
            raise UserError(
                f"k-means needs at least as many patches as words, but {num_images:,} crops have {len(patches):,} usable "
                f"patches for a vocabulary of {self.vocabulary:,} words: choose a smaller vocabulary or add images."
            )
        words = spherical_kmeans(patches.numpy(), self.vocabulary, self.iterations, seed, self.codebook.device)
        self.set_codebook(torch.from_numpy(words))


def spherical_kmeans(
    points: np.ndarray, num_words: int, iterations: int, seed: int, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Spherical k-means on all the points, with a progress bar on a terminal.

    Args:
        points: Unit vectors, (M, d) float32, M ≥ V.
        num_words: V.
        iterations: Most iterations of Lloyd's algorithm.
        seed: Seed of the initial centroids, any integer.
        device: Where torch computes. On a GPU faiss searches instead, on all GPUs, if it can.

    Returns:
        Centroids of unit length, (V, d) float32.
    """
    device = torch.device(device)
    search = search_on(device, points.shape[1])
    log.info(
        "k-means: %s points, %s words, by %s on %s",
        f"{len(points):,}",
        f"{num_words:,}",
        "faiss" if isinstance(search, FaissSearch) else "torch",
        "GPU" if device.type != "cpu" else "CPU",
    )
    generator = np.random.default_rng(derive_seed(seed, "kmeans"))
    some = np.sort(generator.choice(len(points), min(len(points), START_PER_WORD * num_words), replace=False))
    words = spread_start(torch.from_numpy(points[some]).to(device), num_words, generator)
    everything = torch.from_numpy(points)
    if (
        device.type == "cuda"
        and isinstance(search, TorchSearch)
        and 4 * everything.nbytes < torch.cuda.mem_get_info(device)[0]
    ):
        everything = everything.to(device)  # otherwise they are sent in each iteration
    plan = counted(strides(len(points), num_words, iterations), iterations, "k-means")
    return lloyd(everything, words, plan, search).cpu().numpy()


def search_on(device: torch.device, dimensions: int) -> Search:
    """Finds the nearest words on a device: faiss on GPUs that it can use, otherwise torch."""
    return FaissSearch(dimensions) if device.type == "cuda" and faiss_gpu_works() else TorchSearch()
