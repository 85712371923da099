"""Random numbers keyed by their purpose, so that workers, ranks, probes and resumes cannot change a run."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*key: int | str) -> int:
    """Maps a key such as ``(seed, "masks", step)`` to a seed in [0, 2**63), the same on every machine and in every run."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(*key: int | str) -> torch.Generator:
    """A CPU generator, seeded with :func:`derive_seed` of the key."""
    return torch.Generator().manual_seed(derive_seed(*key))


@contextmanager
def seeded_python_and_numpy(seed: int) -> Iterator[None]:
    """Seeds the global generators of Python and NumPy, and restores their states on exit.

    Cheap enough to run once per image; :func:`seeded_globals` seeds torch as well.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seeds the global generators of Python, NumPy and torch (CPU), and restores their states on exit."""
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        with seeded_python_and_numpy(seed):
            yield
    finally:
        torch.random.set_rng_state(torch_state)
