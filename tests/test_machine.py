"""Cores and memory under a container's limits: files as Docker and Slurm leave them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from charcmp.machine import available_cores, cpu_quota, memory_bytes

GIB = 1 << 30
# What /proc/self/cgroup says, the files below /sys/fs/cgroup, then CPUs and GiB that this leaves.
CASES = {
    "docker run --cpus=2.5 --memory=4g, version 2": (
        "0::/\n",
        {"cpu.max": "250000 100000", "memory.max": f"{4 * GIB}"},
        (2.5, 4),
    ),
    "a job's group within the user's, version 2": (
        "0::/slurm/job_7/step_0\n",
        {
            "slurm/job_7/cpu.max": "800000 100000",
            "slurm/job_7/memory.max": f"{8 * GIB}",
            "slurm/job_7/step_0/cpu.max": "max 100000",
            "slurm/job_7/step_0/memory.max": "max",
            "slurm/cpu.max": "3200000 100000",
        },
        (8, 8),
    ),
    # The paths are the host's, which a container does not see.
    "docker run --cpus=2 --memory=4g, version 1": (
        "5:memory:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n1:name=systemd:/docker/ab12\n",
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "200000",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": f"{4 * GIB}",
        },
        (2, 4),
    ),
    "no limit, version 1": (
        "5:memory:/\n4:cpu,cpuacct:/\n",
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
        (math.inf, math.inf),
    ),
    "no limit, version 2": ("0::/user.slice\n", {}, (math.inf, math.inf)),
}


@pytest.mark.parametrize(("own", "files", "left"), CASES.values(), ids=CASES)
def test_limits_of_control_groups(
    tmp_path: Path, own: str, files: dict[str, str], left: tuple[float, float]
) -> None:
    own_groups, groups = tmp_path / "own", tmp_path / "cgroup"
    own_groups.write_text(own)
    for name, contents in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{contents}\n")
    cpus, gib = left
    assert cpu_quota(own_groups, groups) == cpus
    machine = memory_bytes(tmp_path / "none", groups)
    assert memory_bytes(own_groups, groups) == min(machine, gib * GIB)


def test_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path) == math.inf
    assert available_cores() >= 1
    assert memory_bytes() > 100_000_000
