"""What this machine lends to a process: CPU cores and memory, within the limits of a container.

Containers and cluster jobs limit both by control groups: files below /sys/fs/cgroup, in Linux's
version 1 or 2 of them (https://docs.kernel.org/admin-guide/cgroup-v2.html). A limit holds for all
groups below its own.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Returns how many cores' worth of CPU time this process may use; at least 1."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(own_groups: Path = OWN_GROUPS, groups: Path = GROUPS) -> float:
    """Returns the CPU seconds a second that control groups leave this process; inf: no limit."""
    quota = math.inf
    for folder in _groups("cpu", own_groups, groups):
        version_1 = [number for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                     for number in _numbers(folder / name)]  # fmt: skip
        match _numbers(folder / "cpu.max") or version_1:
            case [micros, period] if micros > 0 and period > 0:
                quota = min(quota, micros / period)
    return quota


def memory_bytes(own_groups: Path = OWN_GROUPS, groups: Path = GROUPS) -> int:
    """Returns the bytes of memory that this process and all others of its group can have."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder in _groups("memory", own_groups, groups):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += _numbers(folder / name)
    return min(limits)


def _groups(controller: str, own_groups: Path, groups: Path) -> Iterator[Path]:
    """Yields the folders of this process's groups, and of those around them, for a controller."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # Version 2 has one tree for all controllers and names none.
        if not controllers or controller in controllers.split(","):
            tree = groups / controllers
            own = tree / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(tree))


def _numbers(file: Path) -> list[int]:
    """Returns the numbers in a group's file; none if there is no file, or no limit (`max`)."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
