"""How fast models train, and on what."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from charcmp.report.tables import MANY_MODELS, Entry, Table


def chars_per_second(entry: Entry) -> float:
    """Returns the characters that training read per second, without evaluations; mean over seeds.

    Returns 0 if no run recorded it: see Result.chars_per_second.
    """
    told = [run.chars_per_second for run in entry.runs if run.chars_per_second]
    return statistics.fmean(told) if told else 0.0


def trained_on(entries: Iterable[Entry]) -> str:
    """Returns `Trained on AMD EPYC, 1 thread.`, with a warning if the machines differ."""
    machines = sorted({
        (run.device_name or run.environment.device_name or run.device)
        + _share(run.environment.threads, run.environment.lanes)
        for entry in entries for run in entry.runs
    })  # fmt: skip
    said = f"Trained on {'; '.join(machines)}."
    return said if len(machines) == 1 else f"{said} Speeds on different machines do not compare."


def _share(threads: int | None, lanes: int) -> str:
    """Says how much of the machine a run had."""
    said = f", {threads} thread{'s' * (threads > 1)}" if threads else ""
    return said + (f", {lanes} runs at once" if lanes > 1 else "")


def rows_of_many(table: Table) -> list[str]:
    """Returns the budgets with at least MANY_MODELS models."""
    return [row for row in table.rows if len(table.done_in(row)) >= MANY_MODELS]
