"""The name of this machine's CPU, found without importing torch."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name() -> str:
    """Returns the CPU's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
