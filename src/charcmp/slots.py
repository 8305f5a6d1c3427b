"""The machine in shares: how many runs at once, and what each of them gets."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from charcmp.config import Config
from charcmp.errors import UserError


@dataclass(frozen=True)
class Slot:
    """A run's share of the machine."""

    machine: str  # what it is a share of, for speeds: the device's name
    threads: int | None = None  # of the CPU; None on a GPU
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, str]:
        """By key, what tells a run of its share."""
        # The one GPU that a child sees is its cuda:0.
        return {"device": "cuda"} if self.threads is None else {"threads": str(self.threads)}


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_slots(config: Config) -> list[Slot]:
    """One slot for each run that may go on at once.

    On GPUs one run each; on a CPU one single-threaded run per core, which has 1.3 to 1.7 times the
    throughput of one run on two threads (LOG.md).

    Raises:
        UserError: if a GPU that is asked for is not there.
    """
    if config.device != "cpu":
        import torch

        if torch.cuda.is_available():
            names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            return gpu_slots(config, names, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if config.gpus != "all":
        raise UserError(f"gpus={config.gpus}: no CUDA device here, or device=cpu asked for")
    from charcmp.environment import cpu_name

    cores = available_cores()
    jobs = config.jobs or max(1, cores // (config.threads or 1))
    threads = config.threads or max(1, cores // jobs)
    return [Slot(cpu_name(), threads)] * jobs


def gpu_slots(config: Config, names: list[str], visible: str | None) -> list[Slot]:
    """Slots that see one GPU each.

    Args:
        config: `gpus` or `device` choose among the GPUs, `jobs` how many runs at once.
        names: of all GPUs that this process sees.
        visible: its CUDA_VISIBLE_DEVICES.

    Raises:
        UserError: if a GPU that is asked for is not there.
    """
    numbers = list(range(len(names)))
    if config.gpus != "all":
        numbers = [int(number) for number in config.gpus.split(",")]
    elif config.device.startswith("cuda:"):
        numbers = [int(config.device.removeprefix("cuda:"))]
    if missing := [number for number in numbers if number >= len(names)]:
        raise UserError(f"no GPU {missing[0]} here: there are {len(names)}, counted from 0")
    ids = visible.split(",") if visible else [str(number) for number in range(len(names))]
    slots = [Slot(names[n], None, {"CUDA_VISIBLE_DEVICES": ids[n]}) for n in numbers]
    return [slots[i % len(slots)] for i in range(config.jobs or len(slots))]
