"""K-means centroids of training patches as words (Section 3.3, "k-means"), by faiss."""

import logging
from collections.abc import Iterable
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.seeding import derive_seed
from lit_splitmask.tokenizers.base import CONSTANT_PATCH_NORM, Codebook
from lit_splitmask.tokenizers.sampling import sample_patches

log = logging.getLogger(__name__)


@cache
def faiss_gpu_works() -> bool:
    """Whether faiss finds a GPU and can use it; tried once with a tiny index."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return False
    try:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatIP(8))
        index.add(np.eye(8, dtype=np.float32))
        index.search(np.eye(8, dtype=np.float32), 1)
    except RuntimeError as error:  # faiss raises this for every CUDA failure
        log.warning("faiss sees a GPU but cannot use it (%s); k-means runs on the CPU.", str(error).splitlines()[0])
        return False
    return True


class KMeans(Codebook):
    """Spherical k-means on patches of training crops, L2-normalised, as Eq. 1 is a cosine.

    Args:
        patch_size, in_chans, vocabulary, pixels, codebook_file: As in :class:`Codebook`.
        max_patches: Most patches, sampled uniformly over the images; 3 million in the paper. All of them are used, while faiss by
            default uses at most 256 per centroid.
        iterations: Most iterations of Lloyd's algorithm.

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
        iterations: int = 25,
        codebook_file: str | None = None,
    ) -> None:
        super().__init__(patch_size, in_chans, vocabulary=vocabulary, pixels=pixels, codebook_file=codebook_file)
        self.max_patches, self.iterations = max_patches, iterations

    def fit(self, views: Iterable[Tensor], num_images: int, seed: int) -> None:
        patches = sample_patches(self, views, num_images, self.max_patches, seed=seed)
        norms = patches.norm(dim=1, keepdim=True)
        usable = norms[:, 0] > CONSTANT_PATCH_NORM
        patches = patches[usable].div_(norms[usable])
        if len(patches) < self.vocabulary:
            raise UserError(
                f"k-means needs at least as many patches as words, but {num_images:,} crops have {len(patches):,} usable "
                f"patches for a vocabulary of {self.vocabulary:,} words: choose a smaller vocabulary or add images."
            )
        self.set_codebook(torch.from_numpy(spherical_kmeans(patches.numpy(), self.vocabulary, self.iterations, seed)))


def spherical_kmeans(points: np.ndarray, num_words: int, iterations: int, seed: int) -> np.ndarray:
    """Spherical k-means on all the points, with a progress bar on a terminal.

    Args:
        points: Unit vectors, (M, d) float32, M ≥ V.
        num_words: V.
        iterations: Most iterations of Lloyd's algorithm; faiss is called once per iteration, to show progress.
        seed: Seed of the initial centroids, any integer.

    Returns:
        Centroids of unit length, (V, d) float32.
    """
    import faiss
    from rich.console import Console
    from rich.progress import Progress

    on_gpu = faiss_gpu_works()
    log.info("k-means: %s points, %s words, on %s", f"{len(points):,}", f"{num_words:,}", "GPU" if on_gpu else "CPU")
    first = np.random.default_rng(derive_seed(seed, "kmeans")).choice(len(points), num_words, replace=False)
    centroids = np.ascontiguousarray(points[np.sort(first)])
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for _ in progress.track(range(iterations), description="k-means"):
            kmeans = faiss.Kmeans(
                points.shape[1],
                num_words,
                niter=1,
                seed=derive_seed(seed, "kmeans") % 2**31,
                spherical=True,
                gpu=on_gpu,
                min_points_per_centroid=1,
                max_points_per_centroid=len(points) // num_words + 1,
            )
            kmeans.train(points, init_centroids=centroids)
            before, centroids = centroids, np.array(kmeans.centroids)
            if np.allclose(before, centroids, atol=1e-7):
                break
    return centroids
