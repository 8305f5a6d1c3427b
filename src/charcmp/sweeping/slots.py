"""Shares of the machine: how many runs go on at once, and what each of them gets."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from charcmp.config.schema import Config
from charcmp.errors import UserError, require
from charcmp.machine import available_cores, memory_bytes
from charcmp.output import note
from charcmp.training.cpu import cpu_name
from charcmp.training.nvidia import require_no_idle_gpu, torch_is_for_cpus

# A guess at how many multiprocessors one model keeps busy. On an H200, which has 132, eight lanes
# of the largest models did more per second than 16 or 23 lanes of several sizes (LOG.md). No
# numbers of lanes were compared on the same models.
MULTIPROCESSORS_PER_LANE = 16
# Environment variables of the process that lanes share, for CUDA and the libraries' thread pools.
LANE_ENVIRONMENT = {
    # By default CUDA has eight queues on the host's side, and more streams than that share them.
    "CUDA_DEVICE_MAX_CONNECTIONS": "32",
    # A lane does little on the CPU; by default each would have a thread for every core.
    "OMP_NUM_THREADS": "2",
}
MAX_LANES = 32  # of one GPU: each lane has a CUDA stream, and torch has 32 (cuda_streams.py)


@dataclass(frozen=True)
class Slot:
    """A run's share of the machine."""

    machine: str  # the device's name, under which speeds are kept
    threads: int | None = None  # of the CPU; None on a GPU
    environment: dict[str, str] = field(default_factory=dict)
    lanes: int = 1  # runs at once in the process that slots with the same environment share

    @property
    def on_gpu(self) -> bool:
        return self.threads is None

    @property
    def gpu(self) -> str:
        """Identifies its GPU: the variables that make it the one a process sees."""
        return str(self.environment)

    @property
    def key(self) -> str:
        """The machine's part of what decides a run's speed."""
        return machine_key(self.machine, self.threads, self.lanes)

    @property
    def overrides(self) -> dict[str, str]:
        """The overrides, by key, that give a run this share."""
        # The one GPU that a child sees is its cuda:0.
        return {"device": "cuda"} if self.on_gpu else {"threads": str(self.threads)}


def machine_key(device_name: str, threads: int | None, lanes: int) -> str:
    """Returns a device's name and a run's share of it: CPU threads, or one of a GPU's lanes."""
    if threads is not None:
        return f"{device_name}, {threads} threads"
    return f"{device_name}, {lanes} lanes" if lanes > 1 else device_name


def make_slots(config: Config, run_bytes: int) -> list[Slot]:
    """Returns one slot for each run that may go on at once.

    Each GPU trains several runs at once, in lanes (lanes.py). A CPU by default trains one
    single-threaded run per core, which has 1.3 to 1.7 times the throughput of one run on two
    threads (LOG.md). Without `jobs` there are at most as many as the memory holds; a note says
    if these are fewer.

    Args:
        config: the device, and how many runs share it.
        run_bytes: memory that each run takes; see training_bytes.

    Raises:
        UserError: if a GPU that was asked for does not exist, or if there is one that torch
            cannot use.
    """
    if config.device != "cpu":
        if not torch_is_for_cpus():
            import torch

            if torch.cuda.is_available():
                numbers = range(torch.cuda.device_count())
                gpus = [torch.cuda.get_device_properties(number) for number in numbers]
                counts = [gpu.multi_processor_count for gpu in gpus]
                visible = os.environ.get("CUDA_VISIBLE_DEVICES")
                return gpu_slots(config, [gpu.name for gpu in gpus], counts, visible)
        require_no_idle_gpu()
        require(
            config.device == "auto",
            f"device={config.device}: no CUDA device here; device=cpu trains without one",
        )
    if config.gpus != "all":
        raise UserError(f"gpus={config.gpus}: no CUDA device here, or device=cpu asked for")
    cores = available_cores()
    jobs = config.jobs or _that_fit(max(1, cores // (config.threads or 1)), run_bytes)
    threads = config.threads or max(1, cores // jobs)
    return [Slot(cpu_name(), threads)] * jobs


def _that_fit(jobs: int, run_bytes: int) -> int:
    """Returns how many of so many runs the memory holds, at least 1; prints a note if not all."""
    memory = memory_bytes()
    if jobs * run_bytes <= memory:
        return jobs
    fit = max(1, memory // run_bytes)
    note(
        f"{fit} at once, not {jobs}: each takes some {run_bytes / 1e9:,.1f} GB, and this "
        f"machine has {memory / 1e9:,.1f} GB (jobs= sets another number)"
    )
    return fit


def gpu_slots(
    config: Config, names: list[str], counts: list[int], visible: str | None
) -> list[Slot]:
    """Returns slots that see one GPU each; those of one GPU are lanes of one process.

    Args:
        config: `gpus` or `device` chooses among the GPUs, `jobs_per_gpu` sets how many runs share
            one, `jobs` how many there are at once on all of them.
        names: of all GPUs that this process sees.
        counts: multiprocessors of each.
        visible: this process's CUDA_VISIBLE_DEVICES.

    Raises:
        UserError: if a GPU that was asked for does not exist, is named twice, or would have over
            MAX_LANES lanes.
    """
    numbers = list(range(len(names)))
    if config.gpus != "all":
        numbers = [int(number) for number in config.gpus.split(",")]
        require(
            len(set(numbers)) == len(numbers),
            f"gpus={config.gpus}: names a GPU twice; jobs_per_gpu= sets how many runs share one",
        )
    elif config.device.startswith("cuda:"):
        numbers = [int(config.device.removeprefix("cuda:"))]
    if missing := [number for number in numbers if number >= len(names)]:
        raise UserError(f"no GPU {missing[0]} here: there are {len(names)}, counted from 0")
    ids = visible.split(",") if visible else [str(number) for number in range(len(names))]
    lanes = {}
    for n in numbers:
        lanes[n] = max(1, counts[n] // MULTIPROCESSORS_PER_LANE)
        if config.jobs_per_gpu != "auto":
            lanes[n] = int(config.jobs_per_gpu)
        elif config.jobs:
            lanes[n] = math.ceil(config.jobs / len(numbers))
    require(
        max(lanes.values()) <= MAX_LANES,
        f"{max(lanes.values())} runs on one GPU: at most {MAX_LANES} (jobs_per_gpu=, jobs=)",
    )
    # The first lane of every GPU comes before the second of any.
    slots = [
        Slot(names[n], None, {"CUDA_VISIBLE_DEVICES": ids[n]}, lanes[n])
        for lane in range(max(lanes.values()))
        for n in numbers
        if lane < lanes[n]
    ]
    return slots[: config.jobs]
