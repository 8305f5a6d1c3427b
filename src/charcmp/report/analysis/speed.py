"""How fast models train, and on what."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from charcmp.output import counted
from charcmp.report.load import Run
from charcmp.report.tables import MANY_MODELS, Entry, Table


class Machine(NamedTuple):
    """What a run was computed on: speeds compare only where all of it is equal."""

    device_name: str
    threads: int | None  # None: not recorded
    lanes: int

    def __str__(self) -> str:
        """Returns, for example, `NVIDIA H200, 2 threads, 4 runs at once`."""
        parts = [self.device_name]
        if self.threads:
            parts.append(counted(self.threads, "thread"))
        if self.lanes > 1:
            parts.append(f"{self.lanes} runs at once")
        return ", ".join(parts)


def machine_of(run: Run) -> Machine:
    name = run.device_name or run.environment.device_name or run.device
    return Machine(name, run.environment.threads, run.environment.lanes)


def _has_recorded_machine(run: Run) -> bool:
    return bool(run.device_name or run.environment.device_name) and bool(run.environment.threads)


def chars_per_second(entry: Entry) -> float:
    """Returns the characters that training read per second, without evaluations; mean over seeds.

    Returns 0 if no run recorded it: see Result.chars_per_second.
    """
    known = [run.chars_per_second for run in entry.runs if run.chars_per_second]
    return statistics.fmean(known) if known else 0.0


def best_speeds(entry: Entry) -> dict[Machine, float]:
    """Returns the highest speed that a model reached on each machine, in characters a second.

    The highest, since other work on a machine makes runs slower and is recorded nowhere. Runs at
    other learning rates count too: they compute the same.
    """
    speeds: dict[Machine, float] = {}
    for run in entry.all_runs:
        if run.chars_per_second and run.dropout == entry.dropout and _has_recorded_machine(run):
            machine = machine_of(run)
            speeds[machine] = max(speeds.get(machine, 0.0), run.chars_per_second)
    return speeds


def machines(entries: Iterable[Entry]) -> list[str]:
    """Returns the machines that the runs behind these entries' figures were computed on."""
    return sorted({str(machine_of(run)) for entry in entries for run in entry.runs})


def trained_on(entries: Iterable[Entry]) -> str:
    """Returns `Trained on AMD EPYC, 1 thread.`, with a warning if the machines differ."""
    found = machines(entries)
    sentence = f"Trained on {'; '.join(found)}."
    return f"{sentence} Speeds on different machines do not compare." if found[1:] else sentence


def rows_of_many(table: Table) -> list[str]:
    """Returns the budgets with at least MANY_MODELS models."""
    return [row for row in table.rows if len(table.done_in(row)) >= MANY_MODELS]
