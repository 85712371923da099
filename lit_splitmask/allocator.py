"""Memory of large tensors on a CPU: kept by the process, not given back to the system between one step and the next."""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's numbers of these parameters of mallopt


def keep_freed_memory() -> None:
    """Makes glibc reuse what large tensors have freed.

    By default it returns pieces of more than 32 MB at once, and the system clears each page of the next one anew: 4 to 25 % of a
    step of DINO or MoCo v3 with ViT-S. The peak grows by up to 7 %. Nothing is done elsewhere than on Linux with glibc, or where
    the environment has settings of its own.
    """
    if _is_ours_to_set():
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def drop_freed_memory() -> None:
    """Gives back what is free now: a worker that was forked from a training process would hold on to copies of its pages."""
    if _is_ours_to_set():
        ctypes.CDLL(None).malloc_trim(0)


def _is_ours_to_set() -> bool:
    own = "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"
    return platform.libc_ver()[0] == "glibc" and not any(name.startswith(own) for name in os.environ)
