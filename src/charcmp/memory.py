"""One setting of the C library that a training loop on a CPU should have."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
BYTES_KEPT = 2_000_000_000


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed instead of giving it back to the system after every step.

    A step allocates and frees the same tens of megabytes each time; by default glibc returns them,
    and the system hands them out again page by page, zeroed: a fifth of the time of a 2-layer LSTM
    of 128 units (LOG.md). Elsewhere than on Linux with glibc this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, BYTES_KEPT // 2)
        mallopt(M_TRIM_THRESHOLD, BYTES_KEPT)
        mallopt(M_TOP_PAD, 1 << 26)
