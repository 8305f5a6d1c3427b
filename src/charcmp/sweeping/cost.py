"""Estimates how long runs will take, from finished runs, earlier measurements, or new ones.

measure.py makes the new ones.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charcmp.files import canonical_json, make_folder, write_json
from charcmp.runs import result as records
from charcmp.runs.folder import run_folders, runs_dir
from charcmp.runs.reading import CorruptFileError, read_json
from charcmp.sweeping.measure import measure_shapes
from charcmp.sweeping.slots import machine_key

if TYPE_CHECKING:
    from charcmp.config.spec import RunSpec
    from charcmp.sweeping.grid import Job
    from charcmp.sweeping.slots import Slot

EVALUATION_SHARE = 1 / 3  # of a training step's time: forward only
# Assumptions for ordering runs whose speed is unknown: float operations per second of a core and
# of a GPU's lane, and the time that a GPU takes for one time step of a layer, however narrow.
ASSUMED_FLOPS = 30e9
ASSUMED_GPU_FLOPS = 5e12
ASSUMED_GPU_STEP_SECONDS = 20e-6
FLOPS_PER_PARAM = 6  # forward and backward, per character
# What a step's time depends on, besides cell, sizes and machine.
SPEED_KEYS = (
    *("task", "fill_context", "batch_size", "unroll_steps", "precision", "optimizer.name"),
    *("train_batch_size", "train_unroll_steps"),
)


@dataclass(frozen=True)
class TimeEstimate:
    """The time that a run takes in one slot, and how that is known."""

    seconds: float  # for the whole run
    seconds_left: float  # for the part that its attempts so far have not done
    source: str  # past runs | measured | assumed


def speed_key(identity: dict[str, Any], num_symbols: int, machine: str) -> str:
    """Returns in JSON what decides a run's speed: cell, sizes, machine and SPEED_KEYS."""
    keys = {key: value for key, value in identity.items() if key.startswith("cell.")}
    keys |= {key: identity[key] for key in ("layers", "hidden_size")}
    keys |= {key: identity[key] for key in SPEED_KEYS if key in identity}
    return canonical_json(keys | {"num_symbols": num_symbols, "machine": machine})


class Speeds:
    """The speeds that a results folder knows, in characters per second, by `speed_key`.

    Reads its finished runs, each shape's median, and the measurements kept in speeds.json; leaves
    out what cannot be read.

    Args:
        results_dir: the folder; need not exist.
    """

    def __init__(self, results_dir: str | Path) -> None:
        self.file = Path(results_dir) / "speeds.json"
        self.measured: dict[str, float] = _read_speeds(self.file)
        speeds: dict[str, list[float]] = {}
        for folder in run_folders(runs_dir(results_dir)):
            if (found := _finished_speed(folder / "result.json")) is not None:
                key, chars_per_second = found
                speeds.setdefault(key, []).append(chars_per_second)
        self.finished = {key: statistics.median(values) for key, values in speeds.items()}

    def find(self, key: str) -> tuple[float, str] | None:
        """Returns a shape's characters per second and how that is known; None if unknown."""
        for speeds, source in ((self.finished, "past runs"), (self.measured, "measured")):
            if key in speeds:
                return speeds[key], source
        return None

    def add(self, key: str, chars_per_second: float) -> None:
        """Keeps a measurement in speeds.json.

        Raises:
            UserError, StorageError: if the file cannot be written.
        """
        self.measured[key] = chars_per_second
        make_folder(self.file.parent)
        write_json(self.file, self.measured, flush=False)


def _read_speeds(file: Path) -> dict[str, float]:
    try:
        return read_json(file, records.SPEEDS, records.MAX_SPEEDS_BYTES) or {}
    except CorruptFileError:
        return {}  # only a cache: without it, shapes are measured again


def _finished_speed(result_file: Path) -> tuple[str, float] | None:
    """Returns the `speed_key` and speed of a finished run; None if its files do not have them."""
    try:
        result = read_json(result_file, records.RESULT, records.MAX_RESULT_BYTES)
        environment = records.read_environment(result_file.with_name("environment.json"))
    except CorruptFileError:
        return None
    if result is None or environment.device_name is None or not result.chars_per_second:
        return None
    threads = environment.threads if environment.device == "cpu" else None
    machine = machine_key(environment.device_name, threads, environment.lanes)
    return speed_key(result.identity, result.num_symbols, machine), result.chars_per_second


def run_seconds(spec: RunSpec, chars_per_second: float) -> float:
    """Returns the seconds that a whole run takes, training and evaluations together."""
    config, num_chars = spec.config, spec.corpus.num_chars
    val, test = (num_chars * percent / 100 for percent in config.dataset.split[1:])
    train = spec.updates_per_epoch * spec.train_batch_size * spec.train_unroll_steps
    # At the end the validation text is evaluated once more, for the losses of its characters.
    evaluated = (config.epochs + 1) * val + test
    return (config.epochs * train + EVALUATION_SHARE * evaluated) / chars_per_second


def estimate_times(
    jobs: Sequence[Job], slots: Sequence[Slot], measure: bool = False
) -> dict[Job, TimeEstimate]:
    """Returns the time that each job takes in a slot.

    Args:
        jobs: of one sweep, at least one.
        slots: the shares of the machine that the runs will have.
        measure: whether to measure shapes of unknown speed, rather than assume one.
    """
    machine = slots[0].key
    speeds = Speeds(jobs[0].spec.config.results_dir)
    keys = {
        job: speed_key(job.spec.identity(), job.spec.corpus.num_symbols, machine) for job in jobs
    }
    if measure:
        unknown = {keys[job]: job.spec for job in jobs if speeds.find(keys[job]) is None}
        measured = measure_shapes([*unknown.values()], slots)
        for key, chars_per_second in zip(unknown, measured, strict=True):
            if chars_per_second is not None:
                speeds.add(key, chars_per_second)
    estimates = {}
    for job in jobs:
        assumed = assumed_speed(job.spec, on_gpu=slots[0].on_gpu), "assumed"
        chars_per_second, source = speeds.find(keys[job]) or assumed
        seconds = run_seconds(job.spec, chars_per_second)
        estimates[job] = TimeEstimate(seconds, seconds * (1 - job.fraction_done()), source)
    return estimates


def assumed_speed(spec: RunSpec, on_gpu: bool) -> float:
    """Returns the assumed characters per second of a shape whose speed is unknown.

    On a CPU the arithmetic decides. On a GPU small models are slowed by the time steps, each of
    which has to wait for the one before.
    """
    flops = FLOPS_PER_PARAM * spec.num_params
    if not on_gpu:
        return ASSUMED_FLOPS / flops
    chars = spec.train_batch_size * spec.train_unroll_steps
    waiting = spec.config.layers * spec.train_unroll_steps * ASSUMED_GPU_STEP_SECONDS
    return chars / (chars * flops / ASSUMED_GPU_FLOPS + waiting)


def longest_first(jobs: Sequence[Job], estimates: dict[Job, TimeEstimate]) -> list[Job]:
    """Returns the order of launch, in which short runs end last, so that no slot idles for long."""
    return sorted(jobs, key=lambda job: -estimates[job].seconds_left)


def makespan(seconds: Iterable[float], num_slots: int) -> float:
    """Returns when the last run ends if they are launched in this order as slots become free."""
    ends = [0.0] * num_slots
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)
