"""How fast models train, and on what."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from charcmp.report.tables import MANY_MODELS, Cell, Table


def chars_per_second(cell: Cell) -> float:
    """Characters that its training read in a second, mean over the seeds; evaluations apart."""
    return statistics.fmean(run.chars_per_second for run in cell.runs)


def trained_on(cells: Iterable[Cell]) -> str:
    """`Trained on AMD EPYC, 1 thread.`, and a warning where not all were trained on one machine."""
    machines = sorted({
        (run.device_name or run.environment.device_name or run.device)
        + _share(run.environment.threads, run.environment.lanes)
        for cell in cells for run in cell.runs
    })  # fmt: skip
    said = f"Trained on {'; '.join(machines)}."
    return said if len(machines) == 1 else f"{said} Speeds on different machines do not compare."


def _share(threads: int | None, lanes: int) -> str:
    """How much of the machine a run had."""
    said = f", {threads} thread{'s' * (threads > 1)}" if threads else ""
    return said + (f", {lanes} runs at once" if lanes > 1 else "")


def rows_of_many(table: Table) -> list[str]:
    """The budgets with more models than are seen at a glance."""
    return [
        row for row in table.rows if sum(cell.row == row for cell in table.done()) >= MANY_MODELS
    ]
