"""Words that are k-means centroids of training patches (Section 3.3, "k-means"), by faiss."""

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
    """Whether faiss finds a GPU and can use it: tried once on a tiny index."""
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
    """Spherical k-means over patches of training crops; Eq. 1 is a cosine, so patches are normalised first.

    Args:
        patch_size, in_chans, vocabulary, pixels, codebook_file: see :class:`Codebook`.
        max_patches: patches drawn uniformly over the images; 3 million in the paper, fewer where the folder has fewer.
            All of them are used (faiss by itself would drop those beyond 256 a centroid).
        iterations: Lloyd iterations.
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
        patches = patches[norms[:, 0] > CONSTANT_PATCH_NORM].div_(norms[norms[:, 0] > CONSTANT_PATCH_NORM])
        if len(patches) < self.vocabulary:
            raise UserError(
                f"k-means needs at least as many patches as words, but {num_images:,} crops gave {len(patches):,} usable "
                f"patches for a vocabulary of {self.vocabulary:,}: choose a smaller vocabulary or add images."
            )
        self.set_codebook(torch.from_numpy(spherical_kmeans(patches.numpy(), self.vocabulary, self.iterations, seed)))


def spherical_kmeans(points: np.ndarray, num_words: int, iterations: int, seed: int) -> np.ndarray:
    """Spherical k-means over *all* the points, with a progress bar on a terminal.

    Args:
        points: (M, d) float32, unit rows, M ≥ num_words.
        num_words: V.
        iterations: Lloyd iterations; faiss is called once for each, so that progress shows.
        seed: of the start; any integer.

    Returns:
        (V, d) float32 centroids of unit length.
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
