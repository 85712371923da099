"""Memory of large tensors on a CPU: reused by the process instead of returned to the system after every step."""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's numbers for these parameters of mallopt


def keep_freed_memory() -> None:
    """Makes glibc reuse the memory of freed large tensors.

    By default glibc returns freed blocks of more than 32 MB to the system immediately, and the system clears every page of the
    next block: 4 to 25 % of a step of DINO or MoCo v3 with ViT-S. Peak memory grows by up to 7 %. Does nothing without glibc, or
    if the environment configures the allocator itself.
    """
    if _may_configure_glibc():
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def drop_freed_memory() -> None:
    """Returns freed memory to the system. A forked worker calls it, so as not to hold copies of its parent's freed pages."""
    if _may_configure_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _may_configure_glibc() -> bool:
    """Whether the process runs on glibc and no environment variable configures its allocator."""
    configured_by = "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"
    return platform.libc_ver()[0] == "glibc" and not any(name.startswith(configured_by) for name in os.environ)
