"""The C library's allocator, told to keep what it has: training allocates and frees the same megabytes every layer."""

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)


def keep_memory() -> None:
    """Freed memory stays with the process instead of going back to the kernel (glibc; elsewhere a no-op).

    Threads keep an arena each (glibc's default), though it maps what is larger than 64 MB anew each time: parts of a
    step wait for the lock of a common one several thousand times a second (docs/training_speed.md).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 * 2**20)


def free_memory() -> None:
    """Gives the memory of a finished training back, so that the server finds it free."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
