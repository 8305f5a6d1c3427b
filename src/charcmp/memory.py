"""The memory that a run needs at least, and a setting of the C library for training on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

from charcmp.errors import require
from charcmp.spec import RunSpec

BYTES_PER_PARAM = 8  # a weight and its gradient
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


def require_memory(spec: RunSpec) -> None:
    """UserError for a model that this machine cannot hold, whatever the rest of a run needs."""
    if not hasattr(os, "sysconf"):
        return
    has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needs = BYTES_PER_PARAM * spec.num_params
    require(
        needs <= has,
        f"{spec.num_params:,} parameters (hidden size {spec.hidden_size:,}): weights and gradients "
        f"alone are {needs / 1e9:,.0f} GB, and this machine has {has / 1e9:,.0f} GB; "
        "a smaller hidden_size= or budget= fits",
    )
