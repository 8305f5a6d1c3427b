"""How fast models train, and on what."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from charcmp.output import counted, first_few
from charcmp.report.analysis.wording import name as name_of
from charcmp.report.load import Run
from charcmp.report.tables import MANY_MODELS, Column, Entry, Table

MOST_NAMED = 6


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


def best_speeds(entry: Entry, recorded: bool = True) -> dict[Machine, float]:
    """Returns the highest speed that a model reached on each machine, in characters a second.

    The highest, since other work on a machine makes runs slower and is recorded nowhere. Runs at
    other learning rates count too: they compute the same.

    Args:
        entry: the model.
        recorded: whether only runs count that recorded their machine in full.
    """
    speeds: dict[Machine, float] = {}
    for run in entry.all_runs:
        if not run.chars_per_second or run.dropout != entry.dropout:
            continue
        if _has_recorded_machine(run) or not recorded:
            machine = machine_of(run)
            speeds[machine] = max(speeds.get(machine, 0.0), run.chars_per_second)
    return speeds


class Speeds(NamedTuple):
    """Speeds of models on one machine, which therefore compare."""

    machine: Machine | None  # None: none is known
    by_column: dict[Column, float]  # characters a second; of the models that were trained there


def comparable_speeds(entries: Sequence[Entry]) -> Speeds:
    """Returns the models' best speeds on one machine: if there are several, on one where the LSTM
    was trained and as many of the others as on any."""
    known = {entry.column: best_speeds(entry, recorded=False) for entry in entries}
    on = {machine: {column for column, speeds in known.items() if machine in speeds}
          for speeds in known.values() for machine in speeds}  # fmt: skip
    if not on:
        return Speeds(None, {})

    def order(machine: Machine) -> tuple[bool, int, str]:
        return any(cell == "lstm" for cell, _ in on[machine]), len(on[machine]), str(machine)

    machine = max(on, key=order)
    return Speeds(machine, {column: known[column][machine] for column in on[machine]})


def machines(entries: Iterable[Entry]) -> list[str]:
    """Returns the machines that the runs behind these entries' figures were computed on."""
    return sorted({str(machine_of(run)) for entry in entries for run in entry.runs})


def speed_note(entries: Sequence[Entry]) -> str:
    """Says on what the speeds of these models were measured, and what they depend on."""
    speeds = comparable_speeds(entries)
    if speeds.machine is None:
        return "No speed is known."
    sentences = [f"Speeds are the highest that a run of a model had on {speeds.machine}."]
    if without := [name_of(entry) for entry in entries if entry.column not in speeds.by_column]:
        sentences.append(f"Not trained there: {first_few(without, MOST_NAMED)}.")
    if any(entry.runs[0].origin for entry in entries):
        sentences.append(
            "charcmp computes its own cells by code made for them, and calls classes as they are: "
            "a speed says as much of the code as of the cell."
        )
    return " ".join(sentences)


def rows_of_many(table: Table) -> list[str]:
    """Returns the budgets with at least MANY_MODELS models."""
    return [row for row in table.rows if len(table.done_in(row)) >= MANY_MODELS]
